"""
Orders taken elsewhere, imported from the CSV of a UK online retailer.

Files are read in bounded memory, line by line; invoices that cannot be ordered are rejected with a reason.
Orders are placed by the same services as all others.
"""
