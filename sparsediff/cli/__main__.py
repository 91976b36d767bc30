"""`python -m sparsediff.cli`: the same as the `sparsediff` command."""

import sys

from sparsediff.cli import main

sys.exit(main())
