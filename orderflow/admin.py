"""
What the admin does not show: the keys of second factors.

Whoever could add a device there could log in as its owner; `second_factor` needs a shell.
"""

from django.contrib import admin
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

admin.site.unregister([StaticDevice, TOTPDevice])
