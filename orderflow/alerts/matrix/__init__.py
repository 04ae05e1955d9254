"""
The matrix: injects one fault after the other into a stack, and compares the alerts with those expected.

`cases` says which fault raises which alerts, `faults` injects them, `watch` reads what Prometheus and
Alertmanager do, `mitigation` runs the commands of runbooks, `matrix` puts it together and `page` writes
docs/alerts.md.
"""
