"""Machine-learned force fields from DFT labels and measured properties, trained together."""

from fusedff.runtime.jax_setup import setup

__all__ = ["load", "setup"]


def load(name: str, *more: str):
    """A shipped `Potential`, e.g. 'titanium-fused', or the one in a file; of several names a list, a committee."""
    # here, so that importing fusedff does not import jax, which comes after `setup`
    from fusedff.potential import Potential

    first = Potential.load(name)
    return [first, *map(Potential.load, more)] if more else first
