"""
For a worker that loses patience soon: `celery -A orderflow worker -I tests.chaos.impatient`.

VISIBILITY_TIMEOUT, in seconds, is after how long Redis delivers again what nobody has acknowledged;
HEARTBEAT is that of connections to RabbitMQ.
"""

import os

from celery import current_app

conf = current_app.conf
if conf.broker_url.startswith("redis"):
    visibility = {"visibility_timeout": float(os.environ["VISIBILITY_TIMEOUT"])}
    conf.broker_transport_options = conf.broker_transport_options | visibility
else:
    conf.broker_heartbeat = int(os.environ["HEARTBEAT"])
