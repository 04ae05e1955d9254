"""Prunes continuously: `python -m benchmarks.load.pruner`."""

from __future__ import annotations

import time

PAUSE = 0.1


def main() -> None:
    """Prune until the process is stopped."""
    import django

    django.setup()

    from outbox.retention import pruning

    print("pruning", flush=True)
    while True:
        pruning.prune()
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
