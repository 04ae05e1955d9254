"""
Customers' contact data: finding it, masking it on pages, replacing it for good.

What logs leave out is said by `orderflow.observability.redaction`.
"""
