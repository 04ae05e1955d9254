"""For a relay that only polls, as if every wake-up were lost: `-I benchmarks.deaf`."""

from celery import current_app

current_app.steps["worker"].discard("outbox.relay.listener:Listening")
