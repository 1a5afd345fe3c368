"""``python -m melpatch``: the same as the ``melpatch`` command, for ``torchrun -m melpatch`` and broken PATHs."""

import sys

from melpatch.cli import main

if __name__ == "__main__":
    sys.exit(main())
