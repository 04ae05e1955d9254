"""The address of the shared breakers in environments made before they moved: `BREAKER_FACTORY`."""

from orderflow.shared_state.breakers import shared_breaker

__all__ = ["shared_breaker"]
