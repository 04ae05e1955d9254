"""
Models that the admin hides: the keys of second factors.

A user who can add a device could log in as its owner; `second_factor` requires a shell.
"""

from django.contrib import admin
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

admin.site.unregister([StaticDevice, TOTPDevice])
