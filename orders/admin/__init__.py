"""
The pages of orders in the admin. Django looks for them here; importing the files registers them.

Orders are read-only, with actions to cancel; products take prices and deliveries. No logic is here: pages call
services.
"""

from orders.admin import orders

__all__ = ["orders"]
