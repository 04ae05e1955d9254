"""
What happens to the signals that `outbox.telemetry` emits.

This package alone names vendors: structlog in `logs`, Sentry in `errors`. Both pass the redaction.
"""
