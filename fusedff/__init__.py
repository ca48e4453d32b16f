"""Machine-learned force fields from DFT labels and measured properties, trained together."""

from fusedff.runtime.jax_setup import setup

__all__ = ["load", "setup"]


def load(name: str):
    """A shipped `Potential`, e.g. 'titanium-fused', or the one in a file."""
    # here, so that importing fusedff does not import jax, which comes after `setup`
    from fusedff.potential import Potential

    return Potential.load(name)
