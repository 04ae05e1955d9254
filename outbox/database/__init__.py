"""
What the outbox needs of PostgreSQL: its clock, statements written by hand, storable texts.

Times that decide come from the database, because processes disagree. Whatever comes from outside is made fit
for columns here; no business rule is.
"""
