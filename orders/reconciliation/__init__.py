"""
The providers' own records, compared with our books, and what follows from differences.

After a restore the database has forgotten what providers did: `recovery` enters it again. The comparison runs
as invariants, every night and on demand.
"""
