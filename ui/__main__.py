"""`python -m sparsediff.ui`: the same as `sparsediff ui`."""

import sys

from sparsediff.cli import main

if __name__ == "__main__":
    sys.exit(main(["ui", *sys.argv[1:]]))
