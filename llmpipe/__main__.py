"""Run the command ``llmpipe`` with ``python -m llmpipe``."""

import sys

from llmpipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
