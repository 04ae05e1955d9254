"""Imports a file in its own process: `python -m benchmarks.load.importer FILE LIMIT`. Prints JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(words: list[str]) -> int:
    """Import, and record the memory after every chunk."""
    import django

    django.setup()

    from benchmarks import measure
    from orders.imports import importer

    options = importer.Options(limit=int(words[1]) or None)
    report, memory = importer.ImportReport(), []
    began = time.perf_counter()
    for growing in importer.run(Path(words[0]), options):
        report = growing
        memory.append(measure.processes()[os.getpid()].memory)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "cpu": time.process_time(), "memory": memory, **report.as_dict()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
