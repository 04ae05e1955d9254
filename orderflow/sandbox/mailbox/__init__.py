"""
The mailbox: pages with the e-mails, text messages and pushes that customers would see.

It reads the ledgers of the servers that took the messages in. It is a server of its own and imports nothing of
the project.
"""

from orderflow.sandbox.mailbox.server import create

__all__ = ["create"]
