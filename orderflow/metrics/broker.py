"""What the broker says of its queues."""

from __future__ import annotations

from django.conf import settings

from orderflow.metrics.descriptions import Readings, Value
from outbox.broker import inspection


def read() -> Readings:
    """
    Return the messages in each queue and, from RabbitMQ, its consumers.

    Raises:
        kombu.exceptions.OperationalError: if the broker does not answer.
    """
    messages, consumers = [], []
    for queue, length in inspection.lengths(management=settings.RABBITMQ_API_URL).items():
        messages.append(Value(length.ready, (queue, "ready")))
        if length.unacknowledged is not None:
            messages.append(Value(length.unacknowledged, (queue, "unacknowledged")))
        if length.consumers is not None:
            consumers.append(Value(length.consumers, (queue,)))
    readings: Readings = {"orderflow_queue_messages": messages}
    if consumers:
        readings["orderflow_queue_consumers"] = consumers
    return readings
