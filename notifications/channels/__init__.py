"""The adapters of the channels: one instance per process, created at the first use."""

from __future__ import annotations

import functools

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from notifications import ports
from notifications.models import Channel

ADAPTERS = {
    Channel.EMAIL: "notifications.channels.email.EmailChannel",
    Channel.SMS: "notifications.channels.sms.SmsChannel",
    Channel.PUSH: "notifications.channels.push.PushChannel",
}


@functools.cache
def get(channel: str) -> ports.ChannelAdapter:
    """Return the adapter of `channel`."""
    made: ports.ChannelAdapter = import_string(ADAPTERS[Channel(channel)])()
    return made


def forget(**_: object) -> None:
    """Recreate the adapters at their next use, because settings have changed."""
    get.cache_clear()


setting_changed.connect(forget)
