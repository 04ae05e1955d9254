"""What all processes share through Redis: breakers, and providers that refuse our settings."""

from __future__ import annotations

import redis
from django.conf import settings

from orderflow import providers
from orderflow.metrics.descriptions import Readings, Value
from orderflow.shared_state import credentials
from outbox import resilience


def read() -> Readings:
    """
    Return the state of all breakers. A breaker of which Redis says nothing now is absent.

    Raises:
        redis.RedisError: if Redis does not answer.
    """
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)
    try:
        client.ping()
    finally:
        client.close()
    circuits = {name: resilience.breaker(name).circuit() for name in providers.CONSUMERS}
    known = {name: circuit for name, circuit in circuits.items() if circuit.state != "unknown"}
    refused = credentials.refused()
    return {
        "orderflow_breaker_open": [
            Value(float(circuit.state != "closed"), (name,)) for name, circuit in known.items()
        ],
        "orderflow_breaker_open_seconds": [
            Value(circuit.open_seconds or 0.0, (name,)) for name, circuit in known.items()
        ],
        "orderflow_credentials_refused": [Value(float(name in refused), (name,)) for name in providers.NAMES],
    }
