"""A receiver of Sentry's envelopes: a real HTTP server that keeps what it is sent."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """Keeps the items of all envelopes, and their text."""

    def __init__(self) -> None:
        self.items: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.keep(body)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self._server.server_port}/1"

    def keep(self, body: bytes) -> None:
        self.text += body.decode()
        _, *rest = body.split(b"\n")
        while len(rest) >= 2:
            header = json.loads(rest[0])
            payload, rest = rest[1], rest[2:]
            self.items.append((header["type"], json.loads(payload)))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [item for known, item in self.items if known == kind]

    def check_ins(self, monitor: str) -> list[dict[str, Any]]:
        return [item for item in self.of("check_in") if item["monitor_slug"] == monitor]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
