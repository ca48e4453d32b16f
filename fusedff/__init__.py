"""Machine-learned force fields from DFT labels and measured properties, trained together."""

from fusedff.runs import load

__all__ = ["load"]
