"""
Reading and checking settings before anything starts.

URLs for e-mail and TLS become settings here; `startup` refuses what `manage.py check` calls an error. The
settings themselves are in `orderflow.settings`.
"""
