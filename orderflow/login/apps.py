"""The admin, on our site."""

from django.contrib.admin.apps import AdminConfig


class LoginAdminConfig(AdminConfig):
    default = False
    default_site = "orderflow.login.site.Site"
