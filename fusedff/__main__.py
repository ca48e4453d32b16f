"""`python -m fusedff`: the command line, see `fusedff.commands.cli`."""

import sys

from fusedff.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
