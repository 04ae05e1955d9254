"""
For a worker with short timeouts: `celery -A orderflow worker -I tests.chaos.impatient`.

VISIBILITY_TIMEOUT is the time in seconds after which Redis redelivers unacknowledged messages;
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
