"""
Orders: placed in one transaction, then processed by steps that may be repeated.

The root contains the life of an order: models, moves, steps, compensation. Other apps import only
`orders.contracts`.
"""
