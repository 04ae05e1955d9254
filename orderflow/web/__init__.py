"""
Gunicorn, adapted: its worker, its logs, its error pages, and requests Django cannot take.

A thread is given whole requests only. What Gunicorn refuses is answered as the API answers.
"""
