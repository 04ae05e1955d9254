"""
E-mails, text messages and pushes that follow the events of orders.

One row for each message and channel says what was sent, and a unique key keeps it single. Of orders this app
sees `orders.contracts` and nothing else.
"""
