"""
The alerts: `catalogue` has them, `files` renders those in `deploy/prometheus`, `matrix` proves them by faults.

`python -m orderflow.alerts --write` renders the files again. Only `matrix` imports Django. Which metrics there
are is decided in `orderflow.observability` and documented in docs/metrics.md.
"""
