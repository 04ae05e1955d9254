"""Gunicorn's configuration. Gunicorn reads it from the folder it is started in."""

logger_class = "orderflow.web.log.Logger"
worker_class = "orderflow.web.worker.Worker"  # clients that send or read slowly do not occupy a thread

forwarded_allow_ips = ""
"""Gunicorn trusts no X-Forwarded header; Django does, for the proxies in `TRUSTED_PROXIES`."""

limit_request_line = 4094
"""Bytes; shorter than a header may be. The error `uri-too-long` reports this limit."""


def when_ready(server):
    """Run in the main process before it forks its workers."""
    from orderflow.observability import metric_processes

    metric_processes.begin_web()


def post_worker_init(worker):
    """Run in every worker after it has loaded the project."""
    from orderflow.observability import trace_processes
    from orderflow.web import errors

    errors.answer_with_problems(worker)
    trace_processes.begin_web()
