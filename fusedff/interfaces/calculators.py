"""ASE calculators by name: potentials of fusedff, some of other packages, and any `module:factory`."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from fusedff.data.labelled_frames import Labels
from fusedff.interfaces.ase import FusedCalculator
from fusedff.potential import Potential
from fusedff.runtime.failures import one_line

KNOWN = {  # name -> module:factory; the last three ship with or download weights of their own
    "emt": "ase.calculators.emt:EMT",
    "lj": "ase.calculators.lj:LennardJones",
    "chgnet": "chgnet.model.dynamics:CHGNetCalculator",
    "mace_mp": "mace.calculators:mace_mp",
    "sevennet": "sevenn.calculator:SevenNetCalculator",
}


def by_name(name: str, settings: Mapping | None = None) -> BaseCalculator:
    """Calculator by `name`: a potential that ships, a file of `Potential.save`, one of `KNOWN`, or `module:factory`.

    `settings` are keyword arguments of the factory, for the last two only. Raises ImportError if the module is not
    installed, FileNotFoundError for an unknown name, and ValueError for settings that do not apply, or if the factory
    fails or returns no ASE calculator.
    """
    place = KNOWN.get(name, name)
    if ":" not in place or Path(name).is_file():
        if settings:
            raise ValueError(f"{name} is a potential of fusedff, which takes no settings; leave them out")
        return FusedCalculator(_load(name))
    module, _, factory = place.partition(":")
    try:
        found = import_module(module)
    except ImportError as error:
        remedy = f"install the package that {module.split('.')[0]} belongs to, or add its folder to PYTHONPATH"
        raise ImportError(f"{name}: {error}; {remedy}") from error
    except Exception as error:  # other people's code may raise any error
        said = one_line(error)
        raise ValueError(f"{name}: {module or 'no name'} cannot be imported ({said}); correct it") from error
    if not hasattr(found, factory):
        raise ValueError(f"{name}: {module} has no {factory}; name a class or function that makes a calculator")
    try:
        calculator = getattr(found, factory)(**(settings or {}))
    except Exception as error:  # other people's code may raise any error
        said = one_line(error)
        raise ValueError(f"{name}: {factory} makes no calculator ({said}); check its settings") from error
    if not isinstance(calculator, BaseCalculator):
        raise ValueError(f"{name}: {factory} makes a {type(calculator).__name__}, which is not an ASE calculator")
    known = getattr(calculator, "default_parameters", {}) if name in KNOWN else {}
    if known and (unknown := [key for key in settings or {} if key not in known]):  # ASE would accept and ignore it
        raise ValueError(f"{name}: setting {unknown[0]!r} is unknown; there are {', '.join(known)}")
    return calculator


def compute_labels(calculator: BaseCalculator, structure: Atoms) -> Labels:
    """Energy, forces and stress of a structure from a calculator, as `Labels`; the structure's constraints are ignored.

    The energy is the one whose derivatives are the forces: the free energy, if the calculator gives it separately. The
    stress is nan if the calculator has none for this structure, e.g. a molecule. Raises ValueError for a structure that
    the calculator cannot do.
    """
    atoms = structure.copy()
    atoms.set_constraint()
    atoms.calc = calculator
    free = "free_energy" in calculator.implemented_properties
    try:
        energy, forces = float(atoms.get_potential_energy(force_consistent=free)), np.array(atoms.get_forces(), float)
    except NotImplementedError as error:  # how EMT says that it does not know an element
        raise ValueError(f"this calculator cannot do {atoms.symbols} ({error}); take another one") from error
    try:
        return Labels(energy, forces, np.array(atoms.get_stress(), float))
    except NotImplementedError:
        return Labels(energy, forces, np.full(6, np.nan))


def potential_of(calculator) -> Potential | None:
    """The potential of a `FusedCalculator`; None for other calculators and for committees."""
    members = calculator.members if isinstance(calculator, FusedCalculator) else ()
    return members[0] if len(members) == 1 else None


def _load(name):
    try:
        return Potential.load(name)
    except FileNotFoundError as error:
        if Path(name).is_dir():
            raise FileNotFoundError(f"{name} is a folder; give a file in it, as fused/potential.safetensors") from None
        raise FileNotFoundError(f"{error}, nor a calculator ({', '.join(KNOWN)}, or module:factory)") from None
