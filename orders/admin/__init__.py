"""
The admin pages of orders. Django imports this package; importing its files registers them.

Orders are read-only, with an action to cancel; prices of products can be changed and deliveries received. Pages
contain no logic: they call services.
"""

from orders.admin import orders

__all__ = ["orders"]
