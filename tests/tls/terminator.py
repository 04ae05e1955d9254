"""Terminates TLS in front of a real server without TLS, and forwards the content unencrypted."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import threading
from typing import Any

from tests.tls.authority import Authority, Certificate

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
"""The codes with which a PostgreSQL client requests encryption before anything else."""


class Terminator:
    """Listens on a free port of 127.0.0.1 until it is closed. `clients` signs the client certificates."""

    def __init__(
        self,
        target: tuple[str, int],
        certificate: Certificate,
        *,
        clients: Authority | None = None,
        postgres: bool = False,
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.file, certificate.key)
        if clients:
            context.load_verify_locations(clients.file)
            context.verify_mode = ssl.CERT_REQUIRED
        self.handshakes = 0
        terminator = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    if postgres and not asks_for_tls(self.request):
                        return
                    with context.wrap_socket(self.request, server_side=True) as secure:
                        # With TLS 1.3 the client's certificate is checked after the client has finished its
                        # handshake.
                        terminator.handshakes += 1
                        with socket.create_connection(target) as plain:
                            forward(secure, plain)

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Server(socketserver.ThreadingTCPServer):
    """Its connections end with those of the clients."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


def asks_for_tls(client: socket.socket) -> bool:
    """Respond to a PostgreSQL client that requests encryption; return False if it continues without."""
    while True:
        request = client.recv(8, socket.MSG_WAITALL)
        code = int.from_bytes(request[4:], "big")
        if code == SSL_REQUEST:
            client.sendall(b"S")
            return True
        if code != GSS_REQUEST:
            return False
        client.sendall(b"N")


def forward(secure: ssl.SSLSocket, plain: socket.socket) -> None:
    """Forward bytes in both directions until one side closes."""
    back = threading.Thread(target=carry, args=(plain, secure), daemon=True)
    back.start()
    carry(secure, plain)
    back.join()


def carry(source: Any, drain: Any) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(65536):
            drain.sendall(part)
    for side in (source, drain):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
