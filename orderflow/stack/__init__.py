"""Behind `run.py`: private servers and all processes of the project under one supervisor, while developing.

Nothing here imports the rest of the project, and nothing of it is used in production: there, a process
manager or an orchestrator starts the same commands (see `processes`).
"""
