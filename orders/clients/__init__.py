"""
API clients: their tokens, and the orders that are theirs.

Only the SHA-256 of a secret is kept. How a request shows its token is in `orders.api.auth`.
"""
