"""
The Grafana dashboards, described in Python; `dashboards/` has the JSON that `python -m deploy.grafana` writes.

`panels` says what a panel consists of and how that is written for Grafana. Each other module describes one
dashboard. Grafana reads `dashboards/` and `provisioning/`, and nothing here imports the project.
"""
