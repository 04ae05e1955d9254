"""
The HTTP API: an interface without logic of its own.

Requests are checked and validated here, services act, and representations are returned. Every error is a
problem document (RFC 9457).
"""
