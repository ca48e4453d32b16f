"""Errors on labelled frames of several sources: one evaluation, and one fit of the zeros of energy."""

from dataclasses import replace

import pytest
from argon import argon
from copper import copper, relabelled

from fusedff.geometry import neighbors
from fusedff.interfaces.ase import FusedCalculator
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
