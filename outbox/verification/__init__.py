"""
Whether the system keeps what it promises, and what repairs are safe.

An invariant is one sentence with one query or comparison; apps register theirs. Restored backups are noticed
here, because they break promises that no table shows.
"""
