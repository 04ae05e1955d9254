"""
Orders: placed in one transaction, worked off by steps that may be repeated.

The root holds the life of an order: models, moves, steps, compensation. Other apps see `orders.contracts` and
nothing else.
"""
