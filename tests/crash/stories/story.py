"""The class of stories, and parts that many stories share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orders import services
from orders.models import Order
from outbox import testing

EVERY_WAY = services.Contact(
    name="Ada Example", email="ada@example.com", phone="+447700900123", push_token="device-ada"
)


def nothing(story):
    pass


@dataclass
class Story:
    """The parts of one story, and the data that they share."""

    name: str
    prepare: Callable
    work: Callable
    afterwards: Callable = nothing
    world: object = None
    order: Order | None = None


STORIES: dict[str, Story] = {}


def story(**parts):
    def add(prepare):
        name = prepare.__name__
        STORIES[name] = Story(name=name, prepare=prepare, **parts)
        return prepare

    return add


def drain(story):
    testing.drain()


def drain_all(story):
    testing.drain(redeliveries=True)


def fault(server, **what):
    server.control(**what)
