"""`python -m benchmarks`, which `run.py bench` starts with its own servers."""

import sys

from benchmarks.cli import main

if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
