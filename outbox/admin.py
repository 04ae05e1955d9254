"""The operator windows on the machinery: Django looks for them here, and finds them in the files named so."""

from outbox import admin_dead_letters, admin_messages, admin_verifications  # noqa: F401 - importing them registers them
