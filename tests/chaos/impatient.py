"""
For a worker that loses patience with others soon: `celery -A orderflow worker -I tests.chaos.impatient`.

After VISIBILITY_TIMEOUT seconds, instead of 32, it delivers again what nobody has acknowledged.
"""

import os

from celery import current_app

current_app.conf.broker_transport_options = current_app.conf.broker_transport_options | {
    "visibility_timeout": float(os.environ["VISIBILITY_TIMEOUT"])
}
