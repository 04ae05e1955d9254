"""
Import of orders that were taken elsewhere, from the CSV of a UK online retailer.

Files are read in bounded memory, line by line; invalid invoices are rejected with a reason. Orders are placed
by the same services as all others.
"""
