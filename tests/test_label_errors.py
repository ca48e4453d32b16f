"""Errors on labelled frames of several sources: one evaluation, and one fit of the zeros of energy."""

from dataclasses import replace

import numpy as np
import pytest
from argon import argon, labelled
from ase import Atoms
from ase.build import bulk
from copper import copper, relabelled

from fusedff.geometry import neighbors
from fusedff.interfaces.ase import FusedCalculator
from fusedff.interfaces.calculators import compute_labels
from fusedff.study import comparison
from fusedff.training import label_errors


def frames():
    """Two sources whose zeros of energy are 90 eV per atom apart."""
    one, other = copper(4), [relabelled(f, energy=f.get_potential_energy() + 90.0 * len(f)) for f in copper(3, seed=3)]
    for name, members in (("one", one), ("other", other)):
        for frame in members:
            frame.info["source"] = name
    return one + other


def potential(source):
    return replace(argon(0.3, 2.3, 5.0), numbers=(29,), reference=(-1.0,), source=source)


def test_frames_of_several_sources_are_evaluated_once(monkeypatch):
    calls = []

    def counted(name, function):
        return lambda *arguments: calls.append(name) or function(*arguments)

    monkeypatch.setattr(neighbors, "from_frames", counted("neighbours", neighbors.from_frames))
    monkeypatch.setattr(label_errors, "_evaluate", counted("evaluation", label_errors._evaluate))
    label, found = comparison.predictions(potential("one"), frames())
    assert calls == [*7 * ["neighbours"], "evaluation"]
    assert abs(found["energy"] - label["energy"])[4:].max() < 5  # eV/atom, where the zeros are 90 eV apart
    calls.clear()
    label_errors.errors_and_families(potential("one"), frames())
    assert calls == [*7 * ["neighbours"], "evaluation"]


def test_zeros_are_fitted_in_one_way_whatever_says_the_energies():
    """Where no frame is of the potential's own source, all zeros are fitted, as for any calculator."""
    model = potential("third")
    assert label_errors.errors_of_calculator(FusedCalculator(model), frames()) == pytest.approx(
        label_errors.errors(model, frames()), rel=1e-9
    )


def test_energies_may_count_from_the_zero_of_another_source():
    one, other = frames()[:4], frames()[4:]
    start = label_errors.with_zero_of(potential(""), one)
    moved = label_errors.with_zero_of(start, other)
    assert (start.source, moved.source) == ("one", "other")
    assert moved.reference[0] - start.reference[0] == pytest.approx(90, abs=1)
    assert label_errors.with_zero_of(moved, one).reference == pytest.approx(start.reference, abs=1e-9)
    shifted = [relabelled(f, energy=f.get_potential_energy() - 90.0 * len(f)) for f in other]
    assert label_errors.errors(moved, other) == pytest.approx(
        label_errors.errors(label_errors.with_zero_of(start, shifted), shifted), rel=1e-6
    )
    assert label_errors.with_zero_of(moved, other) is moved
    with pytest.raises(ValueError, match="frames of 2 sources .'one', 'other'.; give labelled frames of one"):
        label_errors.with_zero_of(moved, frames())
    with pytest.raises(ValueError, match="no frame of 'one' has Kr, whose reference energy is asked for"):
        label_errors.with_zero_of(replace(moved, numbers=(29, 36), reference=(0.0, 0.0)), one)


def test_a_frame_that_is_far_off_does_not_shift_the_zero_of_all_others():
    """One frame of twenty with an error of 50 eV; least squares would move every other error by 0.3 eV per atom."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(4, 12, 20)
    off = rng.normal(0, 0.01, 20)
    zeros = label_errors._zeros(sizes[:, None], (-1.2 + off) * sizes + 50.0 * (np.arange(20) == 3), sizes, np.ones(20))
    assert zeros == pytest.approx([-1.2 + np.median(np.delete(off, 3))], abs=0.003)


def test_zeros_that_frames_do_not_tell_apart_are_the_smallest():
    """In cells of one composition, only the sum over the elements is known."""
    counts = np.array([[2, 2], [4, 4], [6, 6]])
    sizes = counts.sum(1)
    np.testing.assert_allclose(label_errors._zeros(counts, 0.5 * sizes, sizes, np.ones(3)), [0.5, 0.5], atol=1e-9)


def test_a_calculator_is_compared_on_a_molecule_which_has_no_stress():
    """It can compute a stress of crystals, which are in the same list."""
    pair = labelled(Atoms("Ar2", [[0, 0, 0], [3.7, 0, 0]]), argon(), stress=False)
    crystal = labelled(bulk("Ar", "fcc", a=5.2, cubic=True), argon())
    found = label_errors.errors_of_calculator(FusedCalculator(argon(0.011)), [pair, crystal])
    expected = label_errors.errors(argon(0.011), [crystal])
    assert found["stress_mae_GPa"] == pytest.approx(expected["stress_mae_GPa"], rel=1e-9)
    assert np.isnan(compute_labels(FusedCalculator(argon()), pair).stress).all()
