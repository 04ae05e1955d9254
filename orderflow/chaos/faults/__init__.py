"""
The faults of a drill: their schedule, how each is injected and ended, and the proxy that disturbs connections.

`schedule` and `proxy` do not import Django. What a fault costs is measured in `orderflow.chaos.assessment`.
"""
