"""Prints, writes or compares the files in `deploy/prometheus`; see `python -m orderflow.alerts --help`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from orderflow.alerts import files
from orderflow.alerts.files import Addresses


def main() -> int:
    """Run as a program; return its exit code."""
    known = Addresses()
    parser = argparse.ArgumentParser(prog="python -m orderflow.alerts", description=__doc__)
    parser.add_argument("--write", action="store_true", help="Write the files instead of printing them.")
    parser.add_argument("--folder", type=Path, default=files.FOLDER, help="Where to write them (%(default)s).")
    parser.add_argument("--exporter", action="append", metavar="HOST:PORT", help="An address of /metrics.")
    parser.add_argument("--processes", action="append", metavar="GLOB", help="Files that list processes.")
    parser.add_argument("--alertmanager", default=known.alertmanager, metavar="HOST:PORT")
    parser.add_argument("--runbooks", default=known.runbooks, metavar="URL", help="Where the runbooks are.")
    parser.add_argument("--dashboards", default=known.dashboards, metavar="URL", help="Where Grafana is.")
    parser.add_argument("--factor", type=float, default=1, help="Multiplies all durations (1).")
    arguments = parser.parse_args()
    addresses = dataclasses.replace(
        known,
        exporters=arguments.exporter or known.exporters,
        processes=arguments.processes or known.processes,
        alertmanager=arguments.alertmanager,
        runbooks=arguments.runbooks,
        dashboards=arguments.dashboards,
    )
    if arguments.write:
        files.write(arguments.folder, addresses, factor=arguments.factor)
    else:
        sys.stdout.write("".join(files.rendered(addresses, factor=arguments.factor).values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
