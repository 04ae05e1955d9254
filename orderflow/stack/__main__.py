"""`python -m orderflow.stack`, which run.py becomes."""

import sys

from orderflow.stack.cli import main

if __name__ == "__main__":
    sys.exit(main())
