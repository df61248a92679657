"""`python -m dialtone` is the terminal client."""

import sys

from dialtone.cli import main

if __name__ == "__main__":
    sys.exit(main())
