"""
Comparison of the providers' records with our books, and recovery from differences.

After a restore the database lacks what providers did meanwhile: `recovery` enters it again. The comparison runs
as invariants, every night and on demand.
"""
