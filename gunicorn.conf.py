"""Gunicorn's own configuration, which it reads in the folder that it is started in."""

logger_class = "orderflow.web.log.Logger"
worker_class = "orderflow.web.worker.Worker"  # clients that send half a request, or do not read, hold no thread

forwarded_allow_ips = ""
"""Gunicorn believes no X-Forwarded header, not even of this machine: Django does, as `TRUSTED_PROXIES` says."""

limit_request_line = 4094
"""Bytes; less than a header may have, and what `uri-too-long` says."""


def post_worker_init(worker):
    """Called in every worker, once it has loaded the project."""
    from orderflow.web import errors

    errors.answer_with_problems(worker)
