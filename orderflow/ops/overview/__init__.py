"""
The overview: the first page of the admin, which shows whether orders flow and what to do if they do not.

`page` reads what its reader may see, `strip` states how each part of the system is, `patience` asks servers
that may hang, `history` reads the last 24 hours, and `plots` draws them. The page shows what it reads from
where it is true; what cannot be read is shown as unknown.
"""
