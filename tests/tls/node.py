"""A private RabbitMQ node that accepts only certificates as logins."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from orderflow.stack import ports
from orderflow.stack.checkout import folders
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.servers import rabbitmq
from orderflow.stack.supervision import children
from tests.processes import eventually
from tests.stack.conftest import new_folder
from tests.tls.authority import Authority, Certificate

PLUGIN = "rabbitmq_auth_mechanism_ssl"


class NoPlugin(Exception):
    """This RabbitMQ does not support login by certificate; the message names what is missing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertificateNode(rabbitmq.RabbitMQ):
    """
    Asks everybody on `tls_port` for a certificate of `clients`. Its users have no passwords, and are named as
    their certificates are. It offers no other login, and on its plain port none.
    """

    tls_port: int
    certificate: Certificate
    clients: Authority
    users: tuple[str, ...]

    def address(self, *, ca: Path, shown: Certificate | None) -> str:
        """Return `BROKER_URL` for a client with this certificate; it has neither a user nor a password."""
        files = {"ssl_certfile": shown.file, "ssl_keyfile": shown.key} if shown else {}
        query = urlencode({"ssl_ca_certs": ca, **files, "login_method": "EXTERNAL"}, safe="/")
        return f"amqps://127.0.0.1:{self.tls_port}//?{query}"

    def _prepare(self) -> None:
        if self.node_folder.exists():
            return
        super()._prepare()
        files = {
            "clients.pem": self.clients.file,
            "server.pem": self.certificate.file,
            "server.key": self.certificate.key,
        }
        for name, source in files.items():
            self.folder.account.take(Path(shutil.copy(source, self.node_folder / name)))
        anything = {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "vhosts": [{"name": "/"}],
            "users": [{"name": user, "password_hash": "", "tags": ""} for user in self.users],
            "permissions": [{"user": user, **anything} for user in self.users],
        }
        self._add("definitions.json", json.dumps(definitions))
        with (self.node_folder / "rabbitmq.conf").open("a") as settings:
            settings.write(
                f"load_definitions = {self.node_folder}/definitions.json\n"
                "auth_mechanisms.1 = EXTERNAL\n"
                f"listeners.ssl.local = 127.0.0.1:{self.tls_port}\n"
                f"ssl_options.cacertfile = {self.node_folder}/clients.pem\n"
                f"ssl_options.certfile = {self.node_folder}/server.pem\n"
                f"ssl_options.keyfile = {self.node_folder}/server.key\n"
                "ssl_options.verify = verify_peer\n"
                "ssl_options.fail_if_no_peer_cert = true\n"
            )
        (self.node_folder / "plugins").write_text(f"[{PLUGIN}].\n")

    def _add(self, name: str, text: str) -> None:
        file = self.node_folder / name
        file.write_text(text)
        self.folder.account.take(file)


@contextlib.contextmanager
def started(certificate: Certificate, clients: Authority, *users: str) -> Iterator[CertificateNode]:
    """
    Start a node, which ends with the block.

    Raises:
        Problem: if RabbitMQ is not installed.
        NoPlugin: if it is, without the plugin.
    """
    program = rabbitmq.program()
    plugins = program.script.resolve().parent.parent / "plugins"
    if not list(plugins.glob(f"{PLUGIN}-*")):
        raise NoPlugin(f"this RabbitMQ has no plugin {PLUGIN} (in {plugins})")
    with new_folder() as folder, contextlib.ExitStack() as ends:
        stack_folders = StackFolders(folder)
        stack_folders.prepare()
        chosen: list[int] = []
        for _ in range(4):
            chosen.append(ports.choose(taken=chosen))
        node = CertificateNode(
            folder=folders.servers_folder(stack_folders, {}),
            program=program,
            log=stack_folders.logs / "rabbitmq.log",
            port=chosen[0],
            tls_port=chosen[1],
            distribution_port=chosen[2],
            names_port=chosen[3],
            password="nobody-has-it",
            certificate=certificate,
            clients=clients,
            users=users,
        )
        for spec in node.specs():
            process = spec.start()
            ends.callback(process.wait)
            ends.callback(children.end_group, process.pid)
            eventually(
                lambda is_ready=spec.is_ready, process=process: is_ready(process) or process.poll() is not None,
                lambda: node.log.read_text(errors="replace")[-3000:],
            )
            assert process.poll() is None, node.log.read_text(errors="replace")[-3000:]
        yield node
