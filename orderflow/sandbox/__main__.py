"""
Start one server of the sandbox.

    python -m orderflow.sandbox payments --port 8101 --data DIRECTORY

The modules of the providers are imported by name when they are needed, so that no server loads the others.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

from orderflow import push_account

from .access import Access, password_in
from .control import Control
from .ledger import Ledger
from .server import SandboxServer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m orderflow.sandbox", description="Start one server of the sandbox."
    )
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--port", type=int, required=True, help="TCP port for HTTP.")
    common.add_argument(
        "--data", type=Path, required=True, help="Directory of the ledger and the password; created if missing."
    )
    common.add_argument("--host", default="127.0.0.1", help="Address to listen on (default: %(default)s).")
    common.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="Also accept this host name, besides this machine's own; may be repeated.",
    )
    common.add_argument(
        "--stop-with-stdin",
        action="store_true",
        help="Stop when standard input ends, that is when the starting process ends.",
    )

    payments = names.add_parser("payments", parents=[common], help="Stripe-shaped payments.")
    payments.add_argument(
        "--key-hours",
        type=float,
        default=24,
        help="How long an idempotency key is remembered (default: %(default)s).",
    )
    payments.add_argument(
        "--search-lag",
        type=float,
        default=0,
        metavar="SECONDS",
        help="How long searches do not find a new payment; at Stripe up to a minute (default: %(default)s).",
    )
    warehouse = names.add_parser("warehouse", parents=[common], help="A warehouse that ships orders.")
    warehouse.add_argument("--token", help="Accept only this bearer token (default: any).")
    warehouse.add_argument(
        "--refuse-country",
        action="append",
        default=[],
        metavar="CC",
        help="Refuse shipments to CC; may be repeated.",
    )
    smtp = names.add_parser("smtp", parents=[common], help="A mail server that keeps the mail it receives.")
    smtp.add_argument("--smtp-port", type=int, required=True, help="TCP port for SMTP.")
    smtp.add_argument("--account", type=Path, metavar="FILE", help="Write the clients' EMAIL_URL to FILE.")
    smtp.add_argument("--address", metavar="HOST:PORT", help="The address for clients; needed for --account.")
    names.add_parser("sms", parents=[common], help="Twilio-shaped text messages.")
    push = names.add_parser("push", parents=[common], help="Push notifications in the shape of FCM HTTP v1.")
    push.add_argument("--account", type=Path, metavar="FILE", help="Write a service account for it to FILE.")
    push.add_argument("--address", metavar="URL", help="The URL for clients; needed for --account.")
    mailbox = names.add_parser("mailbox", parents=[common], help="A page with all that customers received.")
    for source in ("smtp", "sms", "push"):
        mailbox.add_argument(f"--{source}-url", required=True, help=f"HTTP address of the {source} server.")
    return parser


def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    try:
        ledger = Ledger(arguments.data / f"{arguments.name}.sqlite3")
    except (OSError, sqlite3.Error) as error:
        sys.exit(f"{arguments.name}: cannot keep a ledger in {arguments.data}: {error}. Choose another --data.")
    arguments.password = password_in(arguments.data)
    access = Access(arguments.password, host=arguments.host, names=arguments.allow_host)
    if arguments.name == "push" and arguments.account:
        push_account.write(arguments.account, token_uri=f"{arguments.address}/token")
    control = Control(arguments.name, ledger)
    provider = importlib.import_module(f"orderflow.sandbox.{arguments.name}").create(arguments, control)
    try:
        server = SandboxServer((arguments.host, arguments.port), provider, control, access)
    except (OSError, OverflowError) as error:
        address = f"{arguments.host}:{arguments.port}"
        sys.exit(f"{arguments.name}: cannot listen on {address}: {error}. Choose another --port.")
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    if arguments.stop_with_stdin:
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
    print(f"{arguments.name} listens on {arguments.host}:{arguments.port}", flush=True)
    server.serve_forever()


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Every entry is committed before the response, so there is nothing to save. A normal exit would wait for
    # threads, or make them fail while the interpreter shuts down.
    os._exit(0)


def _stop_with_stdin() -> NoReturn:
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
