"""
Verifies that the guarantees hold, and makes safe repairs.

An invariant is a sentence with a query or a comparison; apps register theirs. Restored backups are detected
here, because they break guarantees in ways that no table shows.
"""
