"""For a relay that only polls: `celery -A orderflow worker -I tests.chaos.deaf`."""

from celery import current_app

current_app.steps["worker"].discard("outbox.relay.listener:Listening")
