"""Coverage of the training frames: stored with a potential; its calculator warns once outside of it."""

import warnings
from dataclasses import replace

import jax
import pytest
from argon import argon, labelled
from ase.build import bulk

from fusedff.data.batching import FrameStore
from fusedff.geometry.coverage import Coverage
from fusedff.interfaces.ase import FusedCalculator
from fusedff.potential import Potential
from fusedff.simulation.cells import replicate
from fusedff.simulation.langevin import LangevinConfig
from fusedff.simulation.sampling import sample_crystal
from fusedff.training import force_matching
from fusedff.training.config import ForceMatchingConfig

CUTOFF = argon().cutoff


def crystal(a):
    return bulk("Ar", "fcc", a=a, cubic=True)


def test_coverage_is_the_closest_pair_and_the_range_of_neighbours():
    frames = [labelled(crystal(a), argon()) for a in (5.3, 5.8)]
    found = FrameStore(frames, CUTOFF).coverage()
    assert found.nearest == pytest.approx(5.3 / 2**0.5, rel=1e-12)
    assert (found.fewest, found.most) == (18, 42)  # shells of fcc: 12, 6, 24
    assert found.merged(Coverage(3.0, 50, 60)) == Coverage(3.0, 18, 60)


def test_training_notes_what_it_has_seen_and_a_file_keeps_it(tmp_path):
    frames = [labelled(crystal(a), argon()) for a in (5.3, 5.4)]
    settings = ForceMatchingConfig(epochs=1, batch=2)
    trained, _ = force_matching.train(argon(), frames, frames, settings)
    assert trained.coverage.nearest == pytest.approx(5.3 / 2**0.5)
    single = trained.with_params(jax.tree.map(lambda x: x.astype("float32"), trained.params))
    single.save(tmp_path / "ar.safetensors")
    assert Potential.load(tmp_path / "ar.safetensors").coverage == trained.coverage


def test_the_calculator_warns_once_of_what_is_far_from_all_training_frames():
    known = replace(argon(), coverage=Coverage(3.6, 40, 44))
    for a, says in ((4.9, "atoms are 3.46 Å apart"), (12.0, "an atom has 0 neighbours")):
        frame = crystal(a)
        frame.calc = FusedCalculator(known)
        with pytest.warns(UserWarning, match=f"extrapolates: {says}"):
            frame.get_potential_energy()
        frame.rattle(0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            frame.get_potential_energy()
    frame = crystal(5.3)
    frame.calc = FusedCalculator(known)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame.get_potential_energy()


def test_dynamics_that_ends_far_from_all_training_frames_says_so_with_its_temperature():
    """The same crystals at 20 K and, squeezed, at 30 K; of the former alone, nothing is to be said."""
    known = replace(argon(), coverage=Coverage(3.6, 30, 54))
    settings = LangevinConfig(5.0, 5.0, 4, 1.0)

    def sample(**coverage):
        cells = replicate([crystal(5.3), crystal(5.0)], [20.0, 30.0])
        sample_crystal(
            replace(known, coverage=known.coverage._replace(**coverage)), cells, settings,
            equilibration=0, snapshots=2, seed=0,
        )  # fmt: skip

    with pytest.warns(UserWarning, match=r"cell 1 at 30 K: the potential extrapolates: atoms are 3\.[45]\d Å apart"):
        sample()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(nearest=3.2)


def test_coverage_compiles_nothing_again():
    """Two potentials that differ in nothing else are one to the compiler."""
    one, two = argon(), replace(argon(), coverage=Coverage(3.6, 40, 44))
    assert jax.tree.structure(one) == jax.tree.structure(two)
