"""
AMQP frames of messages that differ only in a few texts.

For each message py-amqp encodes every property, checks for incoming frames and writes to the socket, which is
most of the cost of publishing. Here it encodes the properties once. After that only the varying values are
encoded, and a batch is written to the socket at once.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import amqp
from amqp.serialization import dumps
from amqp.spec import Basic

Fill: TypeAlias = Callable[[Sequence[str]], str | int]
"""Returns a property's value, given the values of one message."""

METHOD, HEADER, BODY = 1, 2, 3
END = b"\xce"
AROUND_FRAME = 8
"""Bytes of a frame besides its payload."""

frame_start = struct.Struct(">BHI").pack
content_start = struct.Struct(">HHQ").pack
table_size = struct.Struct(">I").pack
text_start, short_text_start = struct.Struct(">cI").pack, struct.Struct(">B").pack
number = struct.Struct(">cq").pack


class Properties:
    """Encoded properties with varying values; `varying` maps placeholder texts to functions that fill them."""

    def __init__(self, message: amqp.Message, varying: Mapping[str, Fill]) -> None:
        table = dumps("F", (message.properties["application_headers"],))
        self._before, after = message._serialize_properties().split(table)  # type: ignore[attr-defined]
        self._table = _Encoded(table[len(table_size(0)) :], varying, _long_text)
        self._after = _Encoded(after, varying, _short_text)

    def fill(self, values: Sequence[str]) -> bytes:
        """Return the properties encoded for one message."""
        table = self._table.fill(values)
        return b"".join((self._before, table_size(len(table)), table, self._after.fill(values)))


class _Encoded:
    """A part of encoded properties, split at the varying values."""

    def __init__(self, encoded: bytes, varying: Mapping[str, Fill], encode: Callable[[str], bytes]) -> None:
        fills = {encode(text): fill for text, fill in varying.items()}
        cut = re.compile(b"|".join(map(re.escape, fills)))
        self._first, *fixed = cut.split(encoded)
        self._varying = list(zip([fills[place] for place in cut.findall(encoded)], fixed, strict=True))
        self._encode = encode

    def fill(self, values: Sequence[str]) -> bytes:
        parts = [self._first]
        for fill, fixed in self._varying:
            value = fill(values)
            parts += (number(b"l", value) if isinstance(value, int) else self._encode(value), fixed)
        return b"".join(parts)


def _long_text(text: str) -> bytes:
    encoded = text.encode()
    return text_start(b"S", len(encoded)) + encoded


def _short_text(text: str) -> bytes:
    encoded = text.encode()
    return short_text_start(len(encoded)) + encoded


def publishing(channel: Any, *, exchange: str, routing_key: str) -> bytes:
    """
    Return the frame that announces a message; it is the same for all messages with this address.

    The messages are mandatory: the broker returns those that no queue accepts.
    """
    arguments = dumps("Bssbb", (0, exchange, routing_key, True, False))
    return _frame(METHOD, channel, struct.pack(">HH", *Basic.Publish) + arguments)


def content(channel: Any, properties: bytes, body: bytes) -> Iterator[bytes]:
    """Yield the frames that follow: the header, and the body in as many pieces as it needs."""
    yield _frame(HEADER, channel, content_start(Basic.CLASS_ID, 0, len(body)) + properties)
    most = channel.connection.frame_max - AROUND_FRAME
    for start in range(0, len(body), most):
        yield _frame(BODY, channel, body[start : start + most])


def _frame(kind: int, channel: Any, carried: bytes) -> bytes:
    return b"".join((frame_start(kind, channel.channel_id, len(carried)), carried, END))
