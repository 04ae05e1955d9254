"""
Customers' contact data: finding it, masking it on pages, replacing it permanently.

The redaction of logs is in `orderflow.observability.redaction`.
"""
