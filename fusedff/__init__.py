"""Machine-learned force fields from DFT labels and measured properties, trained together."""

from fusedff.startup import setup

__all__ = ["load", "setup"]


def load(name: str):
    """A shipped `Potential`, e.g. 'titanium-fused', or the one in a file."""
    from fusedff import runs  # here, so that importing fusedff does not import jax, which comes after `setup`

    return runs.load(name)
