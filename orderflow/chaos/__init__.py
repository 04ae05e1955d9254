"""
The drill: breaks a running stack on purpose while a client places orders, and tells what it cost.

`options`, `schedule` and `proxy` know nothing of Django; the rest runs inside `manage.py chaos`.
"""
