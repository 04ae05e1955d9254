"""
Receivers of the signals that `outbox.telemetry` emits.

Only this package names vendors: structlog in `logs`, Sentry in `errors`. Both apply the redaction.
"""
