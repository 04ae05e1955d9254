"""
The mailbox: pages with the e-mails, text messages and pushes that customers would see.

It reads the ledgers of the servers that received the messages. It is a separate server and imports nothing from
the project.
"""

from orderflow.sandbox.mailbox.server import create

__all__ = ["create"]
