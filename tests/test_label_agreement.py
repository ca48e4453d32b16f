"""Energies, forces and stresses that contradict each other are refused by what is wrong; right ones pass in silence."""

import warnings
from functools import cache

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from copper import copper, relabelled

from fusedff.data import datasets
from fusedff.data.labelled_frames import labels
from fusedff.data.validation import label_checks

HARTREE, BOHR, KCAL_MOL = ase.units.Hartree, ase.units.Bohr, ase.units.kcal / ase.units.mol


@cache
def strained(n=24):
    return tuple(copper(n))


@cache
def rattled(n=16, strain=0.0, rattle=0.05, seed=3, repeats=(1, 1, 1), cell=None):
    """Frames of 4 atoms times `repeats`; of a `cell` given by its atoms if there is one."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = (cell.copy() if cell else bulk("Cu", "fcc", a=3.6, cubic=True)) * repeats
        deformation = np.eye(3) + rng.normal(scale=strain, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        atoms.positions += rng.normal(scale=rattle, size=atoms.positions.shape)
        frames.append(relabelled(atoms))
    return tuple(frames)


def alternating(n=12):
    """Cells of 4, 8 and 16 atoms in turn, rattled and strained."""
    sizes = [rattled(n, 0.01, 0.08, seed, size) for seed, size in enumerate([(1, 1, 1), (2, 1, 1), (2, 2, 1)])]
    return tuple(frame for triple in zip(*sizes, strict=True) for frame in triple)


class Triclinic(Atoms):
    """A cell without symmetry, whose constants C45, C46 and C56 are not zero; equal to itself, for `cache`."""

    __hash__ = object.__hash__


TRICLINIC = Triclinic(
    "Cu2AuPt",
    cell=[[3.7, 0.2, 0.1], [0.3, 3.8, -0.4], [0.2, 0.5, 4.0]],
    scaled_positions=[[0, 0, 0], [0.52, 0.47, 0.03], [0.48, 0.04, 0.53], [0.03, 0.53, 0.46]],
    pbc=True,
)


def check(frames, energy=1.0, forces=1.0, stress=1.0, order=slice(None), shears=(0, 1, 2)):
    """`check_changes` of labels multiplied and put in another order; without stress labels if `stress` is None."""
    changed = []
    for frame, label in zip(frames, map(labels, frames), strict=True):
        stresses = np.full(6, np.nan) if stress is None else stress * label.stress[[0, 1, 2, *np.add(shears, 3)]]
        factor = energy(frame) if callable(energy) else energy
        changed.append(
            label._replace(energy=factor * label.energy, forces=forces * label.forces[order], stress=stresses)
        )
    label_checks.check_changes(frames, changed, [f"frame {i}" for i in range(len(frames))])


def per_atom(frame):
    return 1 / len(frame)


RIGHT = {
    "strained": lambda: strained(),
    "rattled": lambda: rattled(),
    "rattled a little": lambda: rattled(rattle=0.01),
    "rattled much": lambda: rattled(rattle=0.15, strain=0.01),
    "of several sizes": alternating,
    "without symmetry": lambda: rattled(40, 0.02, 0.05, cell=TRICLINIC),
    "strained only": lambda: rattled(16, 0.02, 0.0),
    "few": lambda: strained()[:5],
    "titanium": lambda: datasets.load_frames(),
    "aluminium": lambda: datasets.load_frames(datasets.FILES / "aluminium_pbe.extxyz"),
    "magnesium oxide": lambda: datasets.load_frames(datasets.FILES / "mgo_pbe.extxyz"),
}


@pytest.mark.parametrize("stress", [1.0, None], ids=["with stress", "without stress"])
@pytest.mark.parametrize("name", RIGHT)
def test_right_labels_pass_in_silence(name, stress):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(RIGHT[name](), stress=stress)


WRONG = {
    "gradients": ({"forces": -1.0}, "forces have the sign of gradients: multiply by -1"),
    "of other atoms": ({"order": [1, 2, 3, 0]}, "forces in the order of the atoms"),
    "kcal/mol/Å": ({"forces": 1 / KCAL_MOL}, r"forces look like kcal/mol/Å: divide by 23\.061"),
    "Hartree/Bohr": ({"forces": BOHR / HARTREE}, r"forces look like Hartree/Bohr: multiply by 51\.422"),
    "energies in kcal/mol": ({"energy": 1 / KCAL_MOL}, r"energies look like kcal/mol: divide by 23\.061"),
    "energies in Hartree": ({"energy": 1 / HARTREE}, r"energies look like Hartree: multiply by 27\.211"),
    "energies per atom": ({"energy": per_atom}, "energies look like energies per atom: multiply each by the number"),
}


@pytest.mark.parametrize("stress", [1.0, None], ids=["with stress", "without stress"])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_labels_of_strained_and_rattled_cells_are_named(name, stress):
    changes, says = WRONG[name]
    with pytest.raises(ValueError, match=rf"^frame \d+ to frame \d+.*{says}"):
        check(strained(), stress=stress, **changes)


@pytest.mark.parametrize("name", [name for name in WRONG if name != "of other atoms"])
def test_frames_are_compared_though_cells_of_several_sizes_alternate(name):
    changes, says = WRONG[name]
    with pytest.raises(ValueError, match=says):
        check(alternating(), **changes)


@pytest.mark.parametrize(("energy", "forces"), [(1 / HARTREE, BOHR / HARTREE), (2 / HARTREE, 2 * BOHR / HARTREE)])
def test_forces_per_bohr_beside_energies_in_the_same_unit_are_noticed(energy, forces):
    says = r"forces look like eV/Bohr \(or Hartree/Bohr beside energies in Hartree.*\): multiply by 1\.8897"
    for frames in (rattled(), strained()):
        with pytest.raises(ValueError, match=says):
            check(frames, energy, forces, stress=None)


def test_forces_in_another_order_are_not_called_gradients():
    """In cells of 4 atoms they correlate with the right ones by -1/3 on average."""
    for seed in range(3):
        for stress in (1.0, None):
            with pytest.raises(ValueError, match="forces in the order of the atoms") as caught:
                check(rattled(24, 0.01, 0.1, seed), stress=stress, order=[1, 2, 3, 0])
            assert "gradients" not in str(caught.value)


def test_in_cells_of_two_atoms_the_order_may_be_wrong_as_well():
    frames = rattled(16, cell=Triclinic(bulk("Cu", "hcp", a=2.55, c=4.16)))
    says = "forces have the sign of gradients: multiply by -1, or give them in the order of the atoms"
    with pytest.raises(ValueError, match=says):
        check(frames, order=[1, 0])


def test_every_suspect_has_its_own_remedy():
    says = (
        r"energies are about 8(\.\d)? times too small: multiply by 8.*; or forces are about 8.* too large: divide by 8"
    )
    with pytest.raises(ValueError, match=says):
        check(rattled(), energy=1 / 8)


@pytest.mark.parametrize("cell", [None, TRICLINIC], ids=["cubic", "triclinic"])
@pytest.mark.parametrize("shears", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
def test_shear_stresses_in_another_order_are_noticed(cell, shears):
    says = "they were in the order " + " ".join(np.array(["yz", "xz", "xy"])[list(shears)])
    for rattle in (0.0, 0.02):
        with pytest.raises(ValueError, match=f"shear stresses follow other shear strains, as if {says}"):
            check(rattled(40, 0.01, rattle, cell=cell), shears=shears)


def test_frames_that_can_be_compared_are_counted():
    frames = [*alternating(), *rattled(cell=TRICLINIC)[:1]]
    assert label_checks.compared(frames, [labels(frame) for frame in frames]) == (33, 33)
    without = [labels(frame)._replace(stress=np.full(6, np.nan)) for frame in frames]
    assert label_checks.compared(frames, without) == (33, 33)
    assert label_checks.compared(frames[:15], without[:15]) == (0, 12)
    far = rattled(10, 0.0, 0.6)
    assert label_checks.compared(far, [labels(frame) for frame in far]) == (0, 9)
