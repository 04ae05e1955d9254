#!/usr/bin/env python
"""Django's command line: `python3 run.py <command>` runs it inside the managed environment."""

import os
import sys

INTERRUPTED = 130
"""The exit code that shells expect of a program ended by Ctrl-C: 128 plus the signal's number."""


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orderflow.settings")
    try:
        from django.core.management import execute_from_command_line

        execute_from_command_line([os.environ.get("ORDERFLOW_COMMAND", sys.argv[0]), *sys.argv[1:]])
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        return INTERRUPTED
    except Exception as error:
        if "--traceback" in sys.argv or not (complaints := unusable_servers(error)):
            raise
        sys.stderr.write("\n".join(complaints) + "\n")
        return 1
    return 0


def unusable_servers(error: Exception) -> list[str]:
    """Return the servers that do not answer, if one of them may be the reason for the error."""
    from django.db import InterfaceError, OperationalError
    from kombu.exceptions import OperationalError as BrokerError

    if not isinstance(error, (InterfaceError, OperationalError, BrokerError)):
        return []
    from orderflow.stack.checkout import environment
    from orderflow.stack.servers import given

    named = given.named(environment.Given.of(os.environ))
    return given.complaints_about(named, patience=given.SECOND_PATIENCE)


if __name__ == "__main__":
    sys.exit(main())
