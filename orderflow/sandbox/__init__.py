"""
The sandbox: simulated providers (payments, warehouse, SMTP, SMS and push) as real servers, and a mailbox to
view.

Every server is a separate process (`python -m orderflow.sandbox NAME`), speaks its provider's protocol, keeps a
ledger of what happened, and produces faults on request. It imports neither Django nor the rest of the project,
so a server starts within a fraction of a second.
"""
