"""`python -m sentinel`: the same as the command `sentinel`, for where its script is not on the PATH."""

import sys

from sentinel.cli import main

sys.exit(main(sys.argv[1:]))
