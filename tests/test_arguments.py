"""Structures, crystals, calculators and potentials that are exchanged: the error names what was expected."""

import warnings

import pytest
from argon import FCC, argon
from ase.build import bulk

from fusedff.interfaces.ase import FusedCalculator
from fusedff.measurements.state_points import StatePoint
from fusedff.properties.static import defects, elastic, energy_volume, gruneisen, phonons, relax, summary, zone_center
from fusedff.properties.thermal import elastic as thermal_elastic
from fusedff.properties.thermal import lattice, liquid
from fusedff.training import difftre, force_matching, fused, label_errors
from fusedff.training.config import DiffTReConfig, ForceMatchingConfig, FusedConfig

ATOMS, CALCULATOR = bulk("Ar", "fcc", a=FCC.a, cubic=True), FusedCalculator(argon())
OF_ATOMS = (
    elastic.run, phonons.run, gruneisen.run, zone_center.optical, relax.relax_ions, relax.relax_crystal,
    lambda atoms, calculator: energy_volume.run({"fcc": atoms}, calculator),
)  # fmt: skip
OF_CRYSTALS = (
    relax.equilibrium, summary.run, defects.vacancy,
    lambda crystal, calculator: defects.surface(crystal, "111", calculator),
    lambda crystal, calculator: defects.stacking_fault(crystal, "intrinsic", calculator),
)  # fmt: skip


NO_ATOMS = r"fcc Ar with a = 5.27 is no ase.Atoms; .*crystals.unit_cell"
NO_CRYSTAL = r"Atoms\(.* is no Crystal; make one with crystals.from_structure"


@pytest.mark.parametrize(
    ("run", "right", "wrong", "said"),
    [(run, ATOMS, FCC, NO_ATOMS) for run in OF_ATOMS] + [(run, FCC, ATOMS, NO_CRYSTAL) for run in OF_CRYSTALS],
)
def test_properties_at_rest_tell_atoms_from_crystals_and_calculators_from_potentials(run, right, wrong, said):
    with pytest.raises(TypeError, match=said):
        run(wrong, CALCULATOR)
    with pytest.raises(TypeError, match=r"Potential is not an ASE calculator; .*FusedCalculator\(potential\)"):
        run(right, argon())


@pytest.mark.parametrize(
    "run",
    [
        lambda calculator: thermal_elastic.run(calculator, [StatePoint(20.0, FCC)], thermal_elastic.ElasticConfig()),
        lambda calculator: lattice.run(calculator, FCC, [20.0], lattice.LatticeConfig(repeats=(2, 2, 2))),
        lambda calculator: liquid.run(calculator, [ATOMS], [20.0], liquid.LiquidConfig()),
        lambda calculator: difftre.train(calculator, [StatePoint(20.0, FCC)], DiffTReConfig()),
        lambda calculator: label_errors.errors(calculator, [ATOMS]),
    ],
)
def test_what_simulates_or_trains_takes_no_calculator(run):
    with pytest.raises(TypeError, match=r"FusedCalculator.* is no potential; give one, as fusedff.load"):
        run(CALCULATOR)


def test_frames_and_measurements_in_each_others_place_are_told_apart():
    point = StatePoint(20.0, FCC)
    with pytest.raises(TypeError, match=r"frame 0 is StatePoint\(.*; give labelled ase.Atoms"):
        fused.train(argon(), [ATOMS], [point], FusedConfig())
    with pytest.raises(TypeError, match="frame 0 is 'm'; give labelled ase.Atoms, as datasets.load_frames"):
        force_matching.train(argon(), "mine.extxyz", [ATOMS], ForceMatchingConfig())
    with pytest.raises(TypeError, match=r"Atoms\(.* is no measurement; give state points, or targets"):
        difftre.train(argon(), [ATOMS], DiffTReConfig())


def test_training_on_held_out_points_is_a_warning():
    points = [StatePoint(t, FCC, role=role) for t, role in ((20.0, "train"), (30.0, "held-out"))]
    settings = DiffTReConfig(repeats=(1, 1, 1))
    with pytest.warns(UserWarning, match=r"held out \(30 K\), .*select\(points, role='train'\)"):
        difftre.terms_of(points, settings, argon())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        difftre.terms_of(points[:1], settings, argon())


@pytest.mark.parametrize(("frames", "first"), [([FCC], "Crystal"), (ATOMS, "Atom")])
def test_cells_to_simulate_are_a_list_of_atoms(frames, first):
    with pytest.raises(TypeError, match=rf"frame 0 is {first}\(.*; give a list of ase.Atoms, .* crystals.supercell"):
        liquid.run(argon(), frames, [100.0], liquid.LiquidConfig())


def test_a_crystal_is_asked_for_where_a_state_point_has_atoms():
    with pytest.raises(TypeError, match=r"Atoms\(.* is no Crystal; make one with crystals.from_structure"):
        StatePoint(20.0, ATOMS)
