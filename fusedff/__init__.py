"""Machine-learned force fields from DFT labels and measured properties, trained together."""

from importlib import import_module
from typing import TYPE_CHECKING

from fusedff.runtime.jax_setup import setup

if TYPE_CHECKING:
    from fusedff.interfaces.ase import FusedCalculator
    from fusedff.potential import Potential

__all__ = ["FusedCalculator", "Potential", "load", "load_committee", "setup"]

# imported when they are first used, since they import jax, before which `setup` should be called
_LAZY = {"FusedCalculator": "fusedff.interfaces.ase", "Potential": "fusedff.potential"}


def __getattr__(name: str):
    if name == "__version__":
        from importlib.metadata import version

        return version("fusedff")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def load(name: str) -> "Potential":
    """Load a `Potential` that ships with fusedff, e.g. 'titanium-fused', or one from a file; see `Potential.load`."""
    from fusedff.potential import Potential

    return Potential.load(name)


def load_committee(name: str) -> "tuple[Potential, ...]":
    """Load a potential that ships and those of its training with other seeds; see `potential.load_committee`."""
    from fusedff import potential

    return potential.load_committee(name)
