"""
API clients: their tokens, and their orders.

Only the SHA-256 of a secret is stored. How requests send their token is in `orders.api.auth`.
"""
