"""``python -m melpatch``: the same as the ``melpatch`` command, where the PATH does not find that."""

import sys

from melpatch.cli import main

if __name__ == "__main__":
    sys.exit(main())
