"""Events for the tests of the outbox itself."""

from __future__ import annotations

import dataclasses

from outbox.contracts import Event


@dataclasses.dataclass(frozen=True, kw_only=True)
class Happened(Event):
    """Version 1 said `what`, version 2 says `deed`."""

    name = "tests.happened"
    version = 2
    key_field = "about"
    upcasters = {1: lambda payload: {"about": payload["about"], "deed": payload["what"]}}

    about: str = "thing-1"
    deed: str = "fell"
