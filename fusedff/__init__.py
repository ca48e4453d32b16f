"""Machine-learned force fields from DFT labels and measured properties, trained together."""

from fusedff.runtime.jax_setup import setup

__all__ = ["load", "setup"]


def load(name: str, *more: str):
    """Load a `Potential` that ships with fusedff, e.g. 'titanium-fused', or one from a file; see `Potential.load`.

    With several names, returns a list of potentials, which `FusedCalculator` takes as a committee.
    """
    # here, so that importing fusedff does not import jax: `setup` should be called before
    from fusedff.potential import Potential

    first = Potential.load(name)
    return [first, *map(Potential.load, more)] if more else first
