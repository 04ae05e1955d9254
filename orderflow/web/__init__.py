"""
Adaptations of Gunicorn: its worker, its logs, its error responses, and requests that Django cannot handle.

Threads only work on complete requests. Requests that Gunicorn refuses get the API's error format.
"""
