"""
What the project adds to the admin of its apps, and what it hides: the keys of second factors.

A user who can add a device could log in as its owner; `second_factor` requires a shell.
"""

from django.contrib import admin
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from orderflow.ops import order_story, runbooks
from orderflow.personal import masking

admin.site.unregister([StaticDevice, TOTPDevice])
masking.connect()
order_story.connect()
runbooks.connect()
