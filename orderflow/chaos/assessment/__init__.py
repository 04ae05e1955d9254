"""
The assessment of a drill: broken promises, recovery times, response times, duplicate copies and stuck work.

Each module compares what was observed with what is allowed. Nothing here injects faults or places orders.
"""
