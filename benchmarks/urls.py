"""The project's addresses, and those of the baselines of the scenario `intake`."""

from django.urls import include, path

urlpatterns = [path("", include("orderflow.urls"))]
