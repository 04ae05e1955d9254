"""
The benchmark: OrderFlow against common alternatives, on the same servers, in the same run, in turns.

`python3 run.py bench` starts it. The baselines are here too; nothing in the project imports this package.
"""
