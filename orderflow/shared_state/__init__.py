"""
What all processes share through Redis, and what remains without it.

Circuit breakers, refused credentials and the witness of the database's age live here. Without Redis each
process keeps its own.
"""
