"""
The load of a drill: the planned orders, and the client that places them over HTTP.

The client records what the API answered. Whether those answers hold is checked in `orderflow.chaos.assessment`.
"""
