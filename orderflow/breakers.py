"""The former import path of the shared breakers, for environments that still have it in `BREAKER_FACTORY`."""

from orderflow.shared_state.breakers import shared_breaker

__all__ = ["shared_breaker"]
