"""Former import paths that environments may contain still work."""

from django.utils.module_loading import import_string

from orderflow.shared_state import breakers


def test_an_environment_may_name_the_breakers_by_their_former_path():
    assert import_string("orderflow" + ".breakers.shared_breaker") is breakers.shared_breaker
