"""
E-mails, text messages and push notifications about the events of orders.

One row for each message, channel and recipient records what was sent; a unique key prevents duplicates. From
`orders`, this app imports `orders.contracts` only.
"""
