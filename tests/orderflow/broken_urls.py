"""One page that fails."""

from django.urls import path


def broken(request):
    raise LookupError("broken on purpose")


urlpatterns = [path("broken", broken)]
