"""`manage.py metrics`"""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

PORT = 9808


class Command(BaseCommand):
    help = "Serves the metrics of rows, broker and Redis to Prometheus, at /metrics; one process is enough."
    requires_system_checks = ()  # it also starts while the database or the broker is down

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--address",
            default=settings.METRICS_ADDRESS,
            help=f"Where to listen: {settings.METRICS_ADDRESS}. Anybody who reaches it can read the metrics.",
        )
        parser.add_argument(
            "--port",
            type=int,
            default=settings.METRICS_PORT or PORT,
            help=f"Default: METRICS_PORT, or {PORT} if that is 0.",
        )
        parser.add_argument("--once", action="store_true", help="Print the metrics and end.")

    def handle(self, *args: Any, **options: Any) -> None:
        from orderflow.metrics import components
        from orderflow.observability import exporter  # only this process needs the client library

        if options["once"]:
            self.stdout.write(exporter.text(components.all_components().read()).decode(), ending="")
            return
        address, port = options["address"], options["port"]
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        try:
            server, _ = exporter.serve(address=address, port=port)
        except OSError as error:
            raise CommandError(f"{address}:{port} cannot be opened: {error.strerror}") from error
        self.stdout.write(f"Serving metrics at http://{address}:{server.server_port}/metrics")
        self.stdout.flush()
        stopped.wait()
        server.shutdown()
        server.server_close()
