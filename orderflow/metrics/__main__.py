"""`python -m orderflow.metrics --write` writes docs/metrics.md; without the option it prints the page."""

from __future__ import annotations

import argparse
import sys

from orderflow.metrics import reference


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m orderflow.metrics", description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help=f"Write {reference.PAGE.name} instead of printing it."
    )
    if parser.parse_args().write:
        reference.PAGE.write_text(reference.render())
    else:
        sys.stdout.write(reference.render())


if __name__ == "__main__":
    main()
