"""Prunes without end: `python -m benchmarks.pruner`."""

from __future__ import annotations

import time

PAUSE = 0.1


def main() -> None:
    """Prune until ended."""
    import django

    django.setup()

    from outbox.retention import pruning

    print("pruning", flush=True)
    while True:
        pruning.prune()
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
