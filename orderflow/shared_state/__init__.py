"""
State that all processes share through Redis, and the fallback without it.

Circuit breakers, refused credentials and the record of the database's age are here. Without Redis each process
keeps its own.
"""
