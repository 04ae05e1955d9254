"""`python -m orderflow.stack`: run.py replaces itself with this process."""

import sys

from orderflow.stack.cli import main

if __name__ == "__main__":
    sys.exit(main())
