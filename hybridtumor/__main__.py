"""``python -m hybridtumor``: the command line."""

import sys

from hybridtumor.cli import main

if __name__ == "__main__":
    sys.exit(main())
