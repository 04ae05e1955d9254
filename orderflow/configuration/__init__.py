"""
Parsing and checking of settings before anything starts.

URLs for e-mail and TLS are turned into settings here; `startup` refuses to start with errors of `manage.py
check`. The settings are in `orderflow.settings`.
"""
