"""The development stack behind `run.py`: private servers and all processes, under one supervisor.

It imports nothing from the rest of the project. Production does not use it: a process manager or an
orchestrator starts the same commands there (see `processes`).
"""
