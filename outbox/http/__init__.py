"""
Shared helpers for adapters of HTTP providers.

They validate responses, limit their size and duration, and parse `Retry-After`. The apps own the adapters.
"""
