"""`python -m fusedff`: the command line, see `fusedff.cli`."""

import sys

from fusedff.cli import main

if __name__ == "__main__":
    sys.exit(main())
