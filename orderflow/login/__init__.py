"""
Login of staff to the admin: limits before a password is hashed, second factors, and sessions that expire.

What users may do after login is in `orderflow.login.groups`. Clients of the API have tokens, see
`orders.clients.tokens`.
"""
