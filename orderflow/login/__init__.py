"""
How staff come into the admin: limits before a password is hashed, second factors, and sessions that end.

What users may do once they are in is said by `orderflow.login.groups`. Clients of the API have tokens, see
`orders.clients.tokens`.
"""
