"""
The HTTP API: a window without logic of its own.

Requests are guarded and validated here, services act, and representations answer. Every error is a problem
document (RFC 9457).
"""
