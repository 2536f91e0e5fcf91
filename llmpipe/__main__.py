"""``python -m llmpipe`` is the command ``llmpipe``."""

import sys

from llmpipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
