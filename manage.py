#!/usr/bin/env python
"""Django's command line: `python3 run.py <command>` runs it inside the managed environment."""

import os
import sys

INTERRUPTED = 130
"""What shells expect of a program that Ctrl-C ended: 128 and the number of the signal."""


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orderflow.settings")
    try:
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
