"""Compressed bodies of messages, unfolded as far as a worker's memory is safe from them."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError
from kombu import compression

LARGEST_BODY = 1024 * 1024
"""Bytes of a message that are read, unfolded. Ours carry ids, and take some hundreds."""


class TooLarge(InvalidTaskError):
    """The message is larger than any of ours."""


def _bounded(decompressor: Callable[[], Any]) -> Callable[[bytes], bytes]:
    def unfold(body: bytes) -> bytes:
        working = decompressor()
        unfolded: bytes = working.decompress(body, LARGEST_BODY + 1)
        if len(unfolded) > LARGEST_BODY:
            raise TooLarge(f"the body unfolds to more than {LARGEST_BODY} bytes")
        if not working.eof:
            raise InvalidTaskError("the compressed body is cut off")
        return unfolded

    return unfold


UNFOLDING: dict[str, tuple[Callable[[bytes], bytes], Callable[[], Any]]] = {
    "application/x-gzip": (zlib.compress, zlib.decompressobj),
    "application/x-bz2": (bz2.compress, bz2.BZ2Decompressor),
    "application/x-lzma": (lzma.compress, lambda: lzma.LZMADecompressor(memlimit=64 * LARGEST_BODY)),
}


def install() -> None:
    """Have kombu unfold no body beyond `LARGEST_BODY`, and none by a method that cannot be stopped there."""
    known: Any = compression
    for content_type in list(known._decoders):
        if content_type not in UNFOLDING:
            del known._decoders[content_type]
    for content_type, (fold, decompressor) in UNFOLDING.items():
        compression.register(fold, _bounded(decompressor), content_type)
