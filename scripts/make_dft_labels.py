"""Label structures with PBE-DFT (GPAW) and append them to an extended-XYZ file.

The list of structures is the titanium plan below or, with --element, that of another elemental crystal. A plan is a
pure function of one seed, so an interrupted run resumes where it stopped and a longer run only ever adds to a
shorter one. With --structures the frames of any extended-XYZ file, of any material, are labelled in their order,
under their `config_id` or `<file>#<index>`.
Each frame gets `config_type`, `config_id`, `k_mesh`, `dft` (the settings), free energy (eV), forces (eV/Å)
and stress (eV/Å^3, ASE's sign and Voigt order). Kill it at any time: a half-written last frame is cut off on
the next start.

This script stands alone: it needs GPAW and ASE of the system's Python, not this package.

    apt-get install gpaw gpaw-data        # Debian: GPAW and its PBE PAW datasets
    OMP_NUM_THREADS=1 mpirun -np 2 /usr/bin/python3 make_dft_labels.py titanium_pbe.extxyz --pulay 0.054
    ... make_dft_labels.py aluminium_pbe.extxyz --element Al --structure fcc --a 4.04 --frames 60
"""

import argparse
import io
import os
import sys
import time
from collections import namedtuple
from itertools import islice

import numpy as np
from ase import Atoms
from ase.build import bulk, hcp0001, hcp10m10
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.io import write
from ase.io.extxyz import read_xyz
from ase.neighborlist import neighbor_list

Settings = namedtuple("Settings", "cutoff k_spacing k_spacing_large smearing pulay")
DEFAULTS = Settings(
    cutoff=500.0,  # plane waves, eV
    k_spacing=0.26,  # 1/Å including 2π, for cells of fewer than 4 atoms
    k_spacing_large=0.31,  # the others: within 2 meV/atom (hcp) of the finer meshes at half the cost
    smearing=0.2,  # Methfessel-Paxton of order 1, eV
    pulay=0.0,  # eV per atom: pressure times volume that stresses lack at this cutoff; see measure_pulay_stress.py
)
A_HCP, C_HCP, A_BCC, A_FCC = 2.936, 4.648, 3.255, 4.11  # Å, PBE literature values of titanium


def omega() -> Atoms:
    """Hexagonal omega phase of titanium, 3 atoms (P6/mmm)."""
    a, c = 4.575, 2.828
    return Atoms(
        "Ti3",
        cell=[[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, c]],
        scaled_positions=[[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]],
        pbc=True,
    )


PHASES = {
    "hcp": lambda: bulk("Ti", "hcp", a=A_HCP, c=C_HCP),
    "bcc": lambda: bulk("Ti", "bcc", a=A_BCC),
    "fcc": lambda: bulk("Ti", "fcc", a=A_FCC),
    "omega": omega,
}


# Engineering Voigt strains of unit amplitude; `ca` changes c/a at constant volume.
MODES = {
    "xx": [1, 0, 0, 0, 0, 0],
    "zz": [0, 0, 1, 0, 0, 0],
    "yz": [0, 0, 0, 1, 0, 0],
    "xy": [0, 0, 0, 0, 0, 1],
    "ca": [-0.5, -0.5, 1, 0, 0, 0],
}


def deformed(atoms: Atoms, deformation) -> Atoms:
    """A copy with its cell and positions transformed by a deformation gradient (3, 3)."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ np.asarray(deformation).T, scale_atoms=True)
    return atoms


def strain(voigt) -> np.ndarray:
    """Deformation gradient (3, 3) of an engineering Voigt strain (6,)."""
    e1, e2, e3, e4, e5, e6 = voigt
    return np.eye(3) + np.array([[e1, e6 / 2, e5 / 2], [e6 / 2, e2, e4 / 2], [e5 / 2, e4 / 2, e3]])


def strained(atoms: Atoms, name: str, size: float, run: str) -> Atoms:
    """A copy in a strain of `MODES`; `run` marks sheared ones, which shears of other signs or planes only mirror.

    Frames of one run are all trained on, or all tested on.
    """
    atoms = deformed(atoms, strain(np.array(MODES[name]) * size))
    if name in ("yz", "xy"):
        atoms.info["run"] = f"{run}{abs(size):.3f}"
    return atoms


def shortest_distance(atoms: Atoms) -> float:
    """Shortest distance (Å) between atoms, images included, if below 3.5 Å, else infinity."""
    distances = neighbor_list("d", atoms, 3.5)
    return distances.min() if len(distances) else np.inf


def rattled(rng, atoms, sigma, cell_sigma, volume=(0.0, 0.0), d_min=2.0) -> Atoms:
    """A copy with random strain, random change of volume and Gaussian displacements.

    `sigma` (Å) and `cell_sigma` are standard deviations, `volume` is the range of the relative change, and atoms stay
    at least `d_min` (Å) apart.
    """
    while True:
        scale = np.eye(3) + rng.normal(scale=cell_sigma, size=(3, 3))
        x = deformed(atoms, scale * (1 + rng.uniform(*volume)) ** (1 / 3))
        x.positions += rng.normal(scale=sigma, size=x.positions.shape)
        if shortest_distance(x) > d_min:
            return x


def cleaved(atoms: Atoms, axis: int, gap: float) -> Atoms:
    """A copy with a gap (Å) between its periodic images, across the plane of the two cell vectors other than `axis`."""
    atoms = atoms.copy()
    normal = atoms.cell.reciprocal()[axis]
    cell = atoms.cell.array
    cell[axis] += gap * normal / np.linalg.norm(normal)
    atoms.set_cell(cell)
    return atoms


def broken_bonds():
    """Yield (config_type, config_id, atoms) of hcp titanium with fewer neighbours: cleaved, and with vacancies.

    Without them a potential underestimates the energies of surfaces and vacancies by far.
    """
    hcp = PHASES["hcp"]()
    for plane, axis, thick in (("0001", 2, (1, 1, 2)), ("10-10", 0, (2, 1, 1))):
        for gap in (0.6, 1.2, 2.0, 3.2):
            yield "hcp-cleaved", f"hcp-cleaved-{plane}+{gap:.1f}", cleaved(hcp * thick, axis, gap)
    rng = np.random.default_rng(2026)
    for i in range(4):
        vacant = hcp * (2, 2, 1)
        del vacant[0]
        yield "hcp-vacancy", f"hcp-vacancy-{i:03d}", rattled(rng, vacant, 0.06 * i, 0.01, (-0.03, 0.04))


def optical():
    """Yield (config_type, config_id, atoms) of hcp titanium with its two sublattices displaced against each other.

    These are the optical phonons at Gamma, in the plane (E2g) and along c (B1g), which small random displacements
    hardly determine.
    """
    for volume, axis, size in (
        *((0.0, axis, size) for axis in "xz" for size in (0.10, 0.25)),
        *((0.0, "y", size) for size in (0.25, -0.25)),
        *((0.04, axis, 0.15) for axis in "xz"),
    ):
        atoms = deformed(PHASES["hcp"](), np.eye(3) * (1 + volume) ** (1 / 3))
        atoms.positions[1, "xyz".index(axis)] += size
        yield "hcp-optical", f"hcp-optical-{axis}{size:+.2f}-v{volume:+.2f}", atoms


def slipped(atoms: Atoms, axis: int, shift, gap: float = 0.0) -> Atoms:
    """A copy `cleaved` by `gap`, whose periodic images along `axis` are displaced by the vector `shift` (3,) in Å."""
    atoms = cleaved(atoms, axis, gap)
    cell = atoms.cell.array
    cell[axis] += shift
    atoms.set_cell(cell)
    return atoms


def faults():
    """Yield (config_type, config_id, atoms) of hcp titanium slipped along its basal and prismatic planes."""
    hcp = PHASES["hcp"]()
    a1, a2, _ = hcp.cell.array
    prismatic = hcp * (1, 4, 1)
    prismatic.positions -= a2 / 3  # planes come in pairs: slip between two pairs, not within one
    prismatic.wrap()
    stacking = -(a1 + 2 * a2) / 3  # to the stable basal fault, one layer of fcc stacking
    for part, gap in ((0.5, 0.0), (1.0, 0.0), (1.0, 0.1), (-0.5, 0.2)):
        yield "hcp-fault", f"hcp-fault-basal{part:+.2f}+{gap:.1f}", slipped(hcp * (1, 1, 4), 2, part * stacking, gap)
    for part, gap in ((0.25, 0.0), (0.5, 0.0), (0.5, 0.1), (0.5, 0.3)):
        yield "hcp-fault", f"hcp-fault-prismatic{part:+.2f}+{gap:.1f}", slipped(prismatic, 1, part * a1, gap)


def inner_modes():
    """Yield (config_type, config_id, atoms) of 2-atom hcp titanium: sublattices displaced in deformed cells.

    The force constant between the sublattices determines the optical phonons and, through the internal relaxation, a
    tenth of C11 and C12. Random strains and displacements follow.
    """
    hcp = PHASES["hcp"]()
    for volume in (-0.04, 0.0, 0.04, 0.08):
        for axis, size in (("x", 0.06), ("y", -0.06), ("z", 0.06), ("z", 0.20)):
            if (volume, axis, size) == (0.0, "z", 0.20):
                continue
            atoms = deformed(hcp, np.eye(3) * (1 + volume) ** (1 / 3))
            atoms.positions[1, "xyz".index(axis)] += size
            yield "hcp-optical", f"hcp-optical-{axis}{size:+.2f}-v{volume:+.2f}", atoms
    for name in ("xx", "xy", "ca", "yz"):
        for size in (0.015, -0.015):
            for shift in (0.03, -0.05):
                atoms = strained(hcp, name, size, f"hcp-strain-inner-{name}{shift:+.2f}-")
                atoms.positions[1, 0 if name == "xy" else 1] += shift
                yield "hcp-strain-inner", f"hcp-strain-inner-{name}{size:+.3f}{shift:+.2f}", atoms
    rng = np.random.default_rng(77)
    for i in range(16):
        yield "hcp-rattled-2", f"hcp-rattled-2-{i:03d}", rattled(rng, hcp, 0.08, 0.012, (-0.05, 0.06))


def far_volumes():
    """Yield (config_type, config_id, atoms) of the four crystals at 0.5 to 1.4 times their PBE volumes."""
    for phase, make in PHASES.items():
        for v in (-0.50, -0.40, -0.30, -0.20, 0.20, 0.40):
            yield f"{phase}-far", f"{phase}-far-{v:+.2f}", deformed(make(), np.eye(3) * (1 + v) ** (1 / 3))


def slabs():
    """Yield (config_type, config_id, atoms) of (0001) and (10-10) slabs of hcp titanium, 9 Å apart.

    In some, the atoms at either surface are moved inwards by up to 0.15 Å (a negative number in the id).
    """
    for facet, build, sizes in (
        (
            "0001",
            lambda n: hcp0001("Ti", (1, 1, n), a=A_HCP, c=C_HCP),
            ((4, 0.0), (5, 0.0), (5, -0.12), (6, -0.08), (6, 0.0)),
        ),
        (
            "10-10",
            lambda n: hcp10m10("Ti", (1, 2, n // 2), a=A_HCP, c=C_HCP),
            ((4, 0.0), (6, 0.0), (6, -0.15), (8, -0.1)),
        ),
    ):
        for layers, shift in sizes:
            slab = build(layers)
            height = slab.positions[:, 2].copy()
            slab.positions[np.argmax(height), 2] += shift
            slab.positions[np.argmin(height), 2] -= shift
            slab.center(vacuum=4.5, axis=2)
            slab.pbc = True
            yield f"hcp-slab-{facet}", f"hcp-slab-{facet}-{layers}{shift:+.2f}", slab


def measured_cell():
    """Yield (config_type, config_id, atoms) of hcp titanium in the cell measured at 4 K, strained and displaced.

    They determine the elastic constants in this cell, and with small optical displacements the frequencies.
    """
    hcp = PHASES["hcp"]()
    for axis in "zx":
        atoms = hcp.copy()
        atoms.positions[1, "xyz".index(axis)] += 0.03
        yield "hcp-optical", f"hcp-optical-{axis}+0.03-v+0.00", atoms
    cold = bulk("Ti", "hcp", a=2.94398, c=4.67808)
    yield "hcp-strain", "hcp-4K", cold.copy()
    for size in (0.01, -0.01):
        for name in ("xx", "zz", "yz", "xy"):
            cell = strained(cold, name, size, f"hcp-4K-strain-{name}")
            yield "hcp-strain", f"hcp-4K-strain-{name}{size:+.3f}", cell
    for axis in "xz":
        atoms = cold.copy()
        atoms.positions[1, "xyz".index(axis)] += 0.06
        yield "hcp-strain-inner", f"hcp-4K-optical-{axis}+0.06", atoms


def structures():
    """Yield (config_type, config_id, atoms) of the titanium plan: symmetric cells first, then rattled ones.

    Published datasets are resumed by these ids: the structure of an id and the order of random numbers must not change.
    """
    for phase, make in PHASES.items():
        for v in (-0.10, -0.06, -0.03, 0.0, 0.03, 0.06, 0.10):
            yield f"{phase}-eos", f"{phase}-eos-{v:+.2f}", deformed(make(), np.eye(3) * (1 + v) ** (1 / 3))
    for size in (0.01, 0.025):
        for sign in (1, -1):
            for name in MODES:
                cell = strained(PHASES["hcp"](), name, sign * size, f"hcp-strain-{name}")
                yield "hcp-strain", f"hcp-strain-{name}{sign * size:+.3f}", cell
    for name in ("zz", "yz", "xy"):
        for size in (0.03, -0.03):
            cell = strained(PHASES["bcc"](), name, size, "bcc-strain-shear")
            yield "bcc-strain", f"bcc-strain-{name}{size:+.2f}", cell

    yield from broken_bonds()
    yield from optical()
    yield from faults()
    yield from inner_modes()
    yield from far_volumes()
    yield from slabs()

    rng = np.random.default_rng(2024)
    hcp8, hcp16 = PHASES["hcp"]() * (2, 2, 1), PHASES["hcp"]() * (2, 2, 2)
    bcc8, fcc8, omega6 = PHASES["bcc"]() * (2, 2, 2), PHASES["fcc"]() * (2, 2, 2), omega() * (1, 1, 2)
    for i in range(40):
        batch = [("hcp-rattled", rattled(rng, hcp8, s, 0.012, (-0.05, 0.06))) for s in (0.05, 0.12, 0.20)]
        sigma = rng.choice([0.1, 0.2, 0.3])
        batch.append(("bcc-rattled", rattled(rng, bcc8, sigma, 0.012, (-0.05, 0.06))))
        if i % 3 == 0:
            batch.append(("fcc-rattled", rattled(rng, fcc8, 0.15, 0.012, (-0.05, 0.06))))
        if i % 3 == 1:
            batch.append(("disordered", rattled(rng, bcc8, 0.5, 0.02, (0.0, 0.12), d_min=2.15)))
        if i % 3 == 2:
            batch.append(("omega-rattled", rattled(rng, omega6, 0.12, 0.012, (-0.05, 0.06))))
        if i % 4 == 3:
            batch.append(("hcp-rattled-16", rattled(rng, hcp16, 0.15, 0.008, (-0.02, 0.05))))
        for j, (kind, atoms) in enumerate(batch):
            yield kind, f"{kind}-{i:03d}-{j}", atoms
    yield from measured_cell()


def crystal(element, structure, a, c=None) -> tuple:
    """Primitive cell of an elemental hcp, bcc or fcc crystal and a cell to be rattled, of 8, 8 or 4 atoms.

    `a` and `c` (Å) are the lattice constants of DFT near zero pressure.
    """
    if structure == "hcp":
        return bulk(element, "hcp", a=a, c=c), bulk(element, "hcp", a=a, c=c) * (2, 2, 1)
    repeats = {"bcc": (2, 2, 1), "fcc": (1, 1, 1)}[structure]
    return bulk(element, structure, a=a), bulk(element, structure, a=a, cubic=True) * repeats


def structures_of(element, structure, a, c=None):
    """Yield (config_type, config_id, atoms) for one elemental crystal: volumes, strains, then rattled cells.

    A plan like that of titanium (`structures`), with displacements in units of the nearest-neighbour distance. Here,
    too, ids and the order of random numbers must not change.
    """
    primitive, cell = crystal(element, structure, a, c)
    for v in (-0.10, -0.06, -0.03, 0.0, 0.03, 0.06, 0.10):
        yield f"{structure}-eos", f"{structure}-eos-{v:+.2f}", deformed(primitive, np.eye(3) * (1 + v) ** (1 / 3))
    modes = ("xx", "yz", "ca", *(("zz", "xy") if structure == "hcp" else ()))
    for size in (0.01, -0.01, 0.025, -0.025):
        for name in modes:
            cell_of_mode = strained(primitive, name, size, f"{structure}-strain-{name}")
            yield f"{structure}-strain", f"{structure}-strain-{name}{size:+.3f}", cell_of_mode
    rng = np.random.default_rng(2024)
    nearest = neighbor_list("d", primitive, 1.2 * max(a, c or a)).min()
    large = cell * (1, 1, 2)
    for i in range(60):
        for j, share in enumerate((0.02, 0.04, 0.07)):
            atoms = rattled(rng, cell, share * nearest, 0.012, (-0.05, 0.06), 0.68 * nearest)
            yield f"{structure}-rattled", f"{structure}-rattled-{i:03d}-{j}", atoms
        if i % 4 == 3:
            atoms = rattled(rng, large, 0.05 * nearest, 0.008, (-0.02, 0.05), 0.68 * nearest)
            yield f"{structure}-rattled-{len(large)}", f"{structure}-rattled-{len(large)}-{i:03d}", atoms


def frames_in(path):
    """Yield the frames of an extended-XYZ file; all processes read it.

    ASE's `iread` would stop at a blank line between frames, and take an `@` in the path for an index.
    """
    with open(path) as file:
        while first := next((line for line in file if line.strip()), None):
            yield next(read_xyz(io.StringIO(first + "".join(islice(file, int(first) + 1))), index=0))


def structures_from(path):
    """Yield (config_type, config_id, atoms) of an extended-XYZ file.

    Raises ValueError for a repeated id and for a frame that is not periodic in three directions.
    """
    seen = set()
    for i, atoms in enumerate(frames_in(path)):
        name = str(atoms.info.get("config_id", f"{os.path.basename(path)}#{i}"))
        if name in seen:
            raise ValueError(f"{path}, frame {i}: config_id {name!r} was used before; give each frame its own")
        if not atoms.pbc.all():
            raise ValueError(f"{path}, frame {i} ({name}): not periodic; set pbc to T T T and give a cell")
        seen.add(name)
        kind, run = str(atoms.info.get("config_type", "unlabelled")), atoms.info.get("run")
        if run is None and "config_id" not in atoms.info:
            run = name  # else the name of the file would be the run of all its frames
        atoms.info = {} if run is None else {"run": run}  # without the source of earlier labels
        atoms.set_constraint()  # ASE makes some of a column move_mask, and forces on fixed atoms would be labelled 0
        yield kind, name, atoms


def k_mesh(atoms: Atoms, settings=DEFAULTS):
    """Monkhorst-Pack mesh (3,) whose spacing is at most the one set for this size of cell."""
    spacing = settings.k_spacing if len(atoms) < 4 else settings.k_spacing_large
    reciprocal = atoms.cell.reciprocal()
    return tuple(max(1, int(np.ceil(2 * np.pi * np.linalg.norm(b) / spacing))) for b in reciprocal)


def describe(settings) -> str:
    """The settings as one word, written into each frame."""
    pulay = f"-P{settings.pulay:g}" if settings.pulay else ""
    return "GPAW-PBE-PW{:g}-k{:g}/{:g}-MP{:g}".format(*settings) + pulay


def cut_incomplete_frame(path) -> int:
    """Remove what a killed run has left after the last complete frame; returns the number of bytes removed.

    Raises ValueError if a frame does not begin with a number of atoms.
    """
    with open(path, "rb") as file:
        content = file.read()
    end, frame = 0, 0
    while newline := content.find(b"\n", end) + 1:
        if not content[end:].strip():
            break
        first_line = content[end:newline].strip()
        if not first_line.isdigit():
            text = first_line[:40].decode(errors="replace")
            raise ValueError(f"{path}, frame {frame}: begins with {text!r}; repair it by hand")
        for _ in range(int(first_line) + 1):  # the comment line and one line per atom
            newline = content.find(b"\n", newline) + 1
            if not newline:
                break
        if not newline:
            break
        end, frame = newline, frame + 1
    if end < len(content):
        with open(path, "r+b") as file:
            file.truncate(end)
    return len(content) - end


def labelled_ids(path, settings=DEFAULTS, plan=()) -> set:
    """Ids of the frames already in the output.

    Raises ValueError for a frame with other settings, or with another cell or composition than in the plan. Frames that
    are not in `plan` are not checked; without a plan, settings of all frames are.
    """
    done, planned_as = set(), {name: atoms for _, name, atoms in plan}
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return done
    for i, atoms in enumerate(frames_in(path)):
        name = str(atoms.info.get("config_id", i))
        done.add(name)
        if planned_as and name not in planned_as:
            continue
        found = atoms.info.get("dft", "settings that it does not say")
        if found != describe(settings):
            raise ValueError(
                f"{path}, frame {i} ({name}): labelled with {found}, now {describe(settings)}; "
                "write to another file, or use the same settings"
            )
        wanted = planned_as.get(name, atoms)
        if str(wanted.symbols) != str(atoms.symbols) or not np.allclose(wanted.cell, atoms.cell, atol=1e-6):
            raise ValueError(
                f"{path}, frame {i} ({name}): holds {atoms.symbols} in another cell than the {wanted.symbols} to be "
                "labelled now; write another material, or other lattice constants, to another file"
            )
    return done


def slanted(atoms: Atoms) -> bool:
    """Whether the longest lattice vector is more than twice as long as the others and not perpendicular to them.

    A rotation of the crystal may then map this vector onto its sum with others, so that GPAW gives all axes as many
    grid points as the longest needs: fifteen times as many in all for a slipped crystal, where symmetry saves few
    k-points.
    """
    vectors = sorted(atoms.cell.array, key=np.linalg.norm)
    lengths = np.linalg.norm(vectors, axis=1)
    return bool(lengths[2] > 2 * lengths[1] and np.abs(vectors[:2] @ vectors[2]).max() > 0.01 * lengths[1] * lengths[2])


def label(atoms: Atoms, log: str, settings=DEFAULTS, mesh=None):
    """Single-point PBE calculation: (free energy in eV, forces (n, 3) in eV/Å, stress (6,) in eV/Å^3).

    `mesh` (3,) takes the place of the mesh that follows from the settings.
    """
    from gpaw import GPAW, PW, MethfesselPaxton

    atoms = atoms.copy()
    atoms.calc = GPAW(
        mode=PW(settings.cutoff),
        xc="PBE",
        kpts={"size": mesh or k_mesh(atoms, settings), "gamma": True},
        symmetry={"point_group": not slanted(atoms)},
        occupations=MethfesselPaxton(settings.smearing, order=1),
        txt=log,
        maxiter=120,
        convergence={"energy": 2e-5, "density": 1e-4},
    )
    energy = atoms.get_potential_energy(force_consistent=True)
    missing = settings.pulay * len(atoms) / atoms.get_volume() * np.array([1, 1, 1, 0, 0, 0])
    return energy, atoms.get_forces(), atoms.get_stress() - missing


def with_labels(atoms: Atoms, kind, name, energy, forces, stress, settings=DEFAULTS) -> Atoms:
    """A copy with the labels, its ids and the settings of the calculation."""
    atoms = atoms.copy()
    mesh = "x".join(map(str, k_mesh(atoms, settings)))
    atoms.info.update(config_type=kind, config_id=name, k_mesh=mesh, dft=describe(settings))
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
    return atoms


def arguments(argv=None):
    """Command line -> namespace with output, structures, budget, list and settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="extended-XYZ file to append to")
    parser.add_argument("--structures", help="extended-XYZ file to label instead of a plan")
    parser.add_argument("--element", help="chemical symbol of another elemental crystal to plan, with:")
    parser.add_argument("--structure", choices=("hcp", "bcc", "fcc"), help="its structure")
    parser.add_argument("--a", type=float, help="its DFT lattice constant in Å")
    parser.add_argument("--c", type=float, help="the other one, for hcp")
    parser.add_argument("--frames", type=int, help="stop after so many structures of the list (default: all)")
    parser.add_argument("--budget", type=float, default=np.inf, help="start no structure after this many s")
    parser.add_argument("--list", action="store_true", help="only say what is still to be labelled")
    for name, text in (
        ("cutoff", "plane-wave cutoff in eV"),
        ("k-spacing", "k-point spacing in 1/Å (with 2π) of cells of fewer than 4 atoms"),
        ("k-spacing-large", "the same of larger cells"),
        ("smearing", "Methfessel-Paxton width in eV"),
        ("pulay", "pressure times volume per atom, in eV, that stresses at this cutoff lack (Pulay stress)"),
    ):
        default = getattr(DEFAULTS, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=float, default=default, help=f"{text} (default {default})")
    args = parser.parse_args(argv)
    if args.element and args.structures:
        parser.error("--element plans structures and --structures reads them; give one of the two")
    described = (args.structure, args.a, args.c)
    if args.element and None in described[:2]:
        parser.error("--element needs --structure and --a")
    if args.element and (args.structure == "hcp") != (args.c is not None):
        parser.error("give c for hcp, and for hcp alone")
    if args.element and args.element not in chemical_symbols:
        parser.error(f"chemical symbol {args.element!r} is unknown; write it like 'Al'")
    if args.frames is not None and args.frames < 1:
        parser.error("--frames must be positive")
    if not args.element and described != (None, None, None):
        parser.error("--structure, --a and --c describe a crystal of --element; give it")
    args.settings = Settings(*(getattr(args, name) for name in Settings._fields))
    for name, value in args.settings._asdict().items():
        if name != "pulay" and not 0 < value < np.inf:
            parser.error(f"--{name.replace('_', '-')} must be positive, not {value}")
    if not 0 <= args.settings.pulay < 0.3:
        parser.error(f"--pulay must be from 0 to 0.3 eV per atom (not a pressure), not {args.settings.pulay}")
    return args


def planned(args) -> list:
    """The structures that the command line asks for."""
    if args.structures:
        return list(structures_from(args.structures))
    if args.element:
        return list(structures_of(args.element, args.structure, args.a, args.c))
    return list(structures())


def main(argv=None):
    """Label the structures that the output does not contain yet."""
    args = arguments(argv)
    if not args.list:
        import gpaw.mpi  # noqa: F401  before ASE reads or writes, since ASE determines the number of processes once

    plan = planned(args)[: args.frames]
    if args.list:
        done = labelled_ids(args.output, args.settings, plan)
        for kind, name, atoms in plan:
            if name not in done:
                print(f"{name}: {kind}, {len(atoms)} atoms, k-points {k_mesh(atoms, args.settings)}")
        return
    from gpaw import ConvergenceError
    from gpaw.mpi import world

    def say(text):
        if world.rank == 0:
            print(text, flush=True)

    if world.rank == 0 and os.path.exists(args.output) and (cut := cut_incomplete_frame(args.output)):
        say(f"{args.output}: cut off an incomplete last frame ({cut} bytes)")
    world.barrier()
    done = labelled_ids(args.output, args.settings, plan)
    start = time.time()
    for number, (kind, name, atoms) in enumerate(plan, start=1):
        if name in done:
            continue
        # the clock of rank 0 decides for all; otherwise some ranks could stop while others wait for them
        elapsed = np.array([time.time() - start])
        world.broadcast(elapsed, 0)
        if elapsed[0] > args.budget:
            say(f"budget of {args.budget:g} s used up before {number}/{len(plan)} {name}; run again to resume")
            break
        t = time.time()
        try:
            energy, forces, stress = label(atoms, args.output + ".log", args.settings)
        except ConvergenceError:
            say(f"{number}/{len(plan)} {name}: SCF did not converge, skipped")
            continue
        frame = with_labels(atoms, kind, name, energy, forces, stress, args.settings)
        write(args.output, frame, format="extxyz", append=True)  # collective: ASE writes on rank 0 only
        say(
            f"{number}/{len(plan)} {name}: {len(atoms)} atoms, {energy / len(atoms):.4f} eV/atom, "
            f"max |F| {abs(forces).max():.3f} eV/Å, {time.time() - t:.0f} s"
        )


if __name__ == "__main__":
    sys.exit(main())
