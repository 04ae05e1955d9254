"""For a relay that only polls and needs 0.2 seconds for each message: `-I tests.chaos.slow_relay`."""

import time

from outbox.relay import relay
from tests.chaos import deaf  # noqa: F401

claim = relay.claim


def claim_slowly(limit, **options):
    time.sleep(0.2)
    return claim(limit, **options)


relay.claim = claim_slowly
relay.drain.__kwdefaults__["batch"] = 1
