"""Concurrent relays: `python -m benchmarks.load.drainers RELAYS`. Prints one line of JSON."""

from __future__ import annotations

import json
import os
import sys


def main(words: list[str]) -> int:
    """Drain in this many processes at once and print the result."""
    import django

    django.setup()

    from benchmarks.load.forks import together
    from outbox.relay import relay

    done = together(lambda number: relay.drain().published, count=int(words[0]))
    used = os.times()
    cpu = used.children_user + used.children_system
    print(json.dumps({"seconds": done.seconds, "published": done.answers, "cpu": cpu}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
