"""
Process supervision: what a process is, when it is ready, how it is restarted and stopped.

The supervisor knows only `ProcessSpec`s. Which processes OrderFlow has is in `orderflow.stack.processes`.
"""
