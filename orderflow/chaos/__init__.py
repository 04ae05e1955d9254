"""
The drill: injects faults into a running stack while a client places orders, and reports what was lost or late.

`drill` runs it, `faults` disturbs the stack, `load` places the orders and `assessment` judges the result.
`options`, `faults.schedule` and `faults.proxy` do not import Django; the rest runs inside `manage.py chaos`.
"""
