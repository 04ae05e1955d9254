"""Behind `run.py`: private servers and every process of the project under one supervisor, for development and tests.

Nothing here imports the rest of the project, and nothing of it is used in production: there, a process manager or an
orchestrator starts the same commands (see `processes`).
"""
