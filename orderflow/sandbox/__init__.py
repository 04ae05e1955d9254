"""
The pretend outside world: payments, warehouse, SMTP, SMS and push as real servers, and a mailbox to look at.

Every server is a process of its own (`python -m orderflow.sandbox NAME`), speaks its provider's protocol,
keeps a ledger of what really happened and can be told to misbehave. Nothing here imports the rest of the
project, nor Django: a server is up before a person notices.
"""
