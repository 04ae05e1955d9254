"""
The commands of `run.py`: the stack, the tests, the benchmark and the drill.

`control` stops, shows and resets a stack, and needs no installed packages. `orderflow.stack.cli` calls them.
"""
