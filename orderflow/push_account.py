"""A service account for the push sandbox, in the format of Google's key files."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path


def write(path: Path, *, token_uri: str) -> None:
    """Write the account, readable only by its owner, with a key that is generated once."""
    try:
        account = json.loads(path.read_text())
    except (OSError, ValueError):
        account = {
            "type": "service_account",
            "project_id": "orderflow-sandbox",
            "private_key_id": secrets.token_hex(20),
            "private_key": _private_key(),
            "client_email": "orderflow@orderflow-sandbox.example",
            "client_id": str(secrets.randbelow(10**20)),
        }
    if account.get("token_uri") != token_uri:
        half = path.with_name(f"{path.name}.half")
        half.unlink(missing_ok=True)
        with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(json.dumps({**account, "token_uri": token_uri}, indent=1))
        half.replace(path)


def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()
