"""
The baseline with asyncio: procrastinate's workers, with many jobs in flight in one process and no broker.

The same orders, the same rows at the end, the same three provider calls, as ordinary code and tuned. The first
job of an order is written in the order's own transaction, and each next one in that of the step before: as in
OrderFlow, a process that is killed loses none. No claims, versions or deadlines: the job that a killed process
had begun stays until somebody retries it.

Its packages are in an environment of their own, made when it is first needed (`venv`).
"""
