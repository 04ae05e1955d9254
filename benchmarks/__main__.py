"""`python -m benchmarks`, which `run.py bench` starts with servers of its own."""

import sys

from benchmarks.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
