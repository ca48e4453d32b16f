"""`python -m fusedff`: the command line, see `fusedff.study.cli`."""

import sys

from fusedff.study.cli import main

if __name__ == "__main__":
    sys.exit(main())
