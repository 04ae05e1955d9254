"""`{{ event.total_minor|money:event.currency }}`."""

from __future__ import annotations

from django import template

from notifications.money import format_amount

register = template.Library()
register.filter("money", format_amount)
