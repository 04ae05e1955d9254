"""Decompression of message bodies with a size limit, which protects a worker's memory."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError
from kombu import compression

LARGEST_BODY = 1024 * 1024
"""Maximum bytes of a decompressed body. Messages of the outbox contain ids and have some hundreds."""


class TooLarge(InvalidTaskError):
    """The message is larger than any valid message."""


def _bounded(decompressor: Callable[[], Any]) -> Callable[[bytes], bytes]:
    def decompress(body: bytes) -> bytes:
        working = decompressor()
        decompressed: bytes = working.decompress(body, LARGEST_BODY + 1)
        if len(decompressed) > LARGEST_BODY:
            raise TooLarge(f"the body decompresses to more than {LARGEST_BODY} bytes")
        if not working.eof:
            raise InvalidTaskError("the compressed body is truncated")
        return decompressed

    decompress.is_bounded = True  # type: ignore[attr-defined]
    return decompress


METHODS: dict[str, tuple[Callable[[bytes], bytes], Callable[[], Any]]] = {
    "application/x-gzip": (zlib.compress, zlib.decompressobj),
    "application/x-bz2": (bz2.compress, bz2.BZ2Decompressor),
    "application/x-lzma": (lzma.compress, lambda: lzma.LZMADecompressor(memlimit=64 * LARGEST_BODY)),
}


def install() -> None:
    """Make kombu decompress no body beyond `LARGEST_BODY`, and remove methods without such a limit."""
    known: Any = compression
    for content_type in list(known._decoders):
        if content_type not in METHODS:
            del known._decoders[content_type]
    for content_type, (compress, decompressor) in METHODS.items():
        compression.register(compress, _bounded(decompressor), content_type)


def is_installed() -> bool:
    """Whether this process decompresses every body up to a limit only."""
    known: Any = compression
    return all(hasattr(decoder, "is_bounded") for decoder in known._decoders.values())
