"""Evaluation of a cell in parts, each with its own atoms and a halo: the parts add up to the whole."""

from dataclasses import replace

import ase
import jax
import numpy as np
import pytest
from argon import argon
from ase.build import bulk

from benchmarks import titanium
from fusedff.geometry.halo import with_halo
from fusedff.interfaces.evaluator import Evaluator
from fusedff.network.dimenet import DimeNet

NETWORK = DimeNet(cutoff=3.4, embedding=4, blocks=2, radial=3, spherical=2, interaction=2, basis=2, type_embedding=2,
                  output=4, output_layers=1, layers_after_skip=1)  # fmt: skip


def network(blocks=2):
    """A network with random weights in double precision, so that parts agree to its rounding."""
    model = titanium.network(replace(NETWORK, blocks=blocks))
    return model.with_params(jax.tree.map(lambda x: np.asarray(x, float), model.params))


def wire():
    """320 atoms of titanium, skewed and displaced, longer than the halo of a half of it."""
    frame = bulk("Ti", "hcp", a=2.95, c=4.68) * (16, 5, 2)
    frame.rattle(0.1, seed=1)
    return frame


def slab():
    frame = wire()
    frame.pbc = (True, True, False)
    return frame


def halves(frame):
    along = frame.get_scaled_positions()[:, 0]
    return [along < 0.5, along >= 0.5]


def anywhere(frame):
    which = np.random.default_rng(0).integers(0, 4, len(frame))
    return [which == n for n in range(4)]


def sums(evaluate, frame, parts):
    found = [evaluate(frame, own) for own in parts]
    return [sum(np.asarray(x, float) for x in same) for same in zip(*found, strict=True)]


@pytest.mark.parametrize("make", [wire, slab])
@pytest.mark.parametrize("parts", [halves, anywhere])
def test_energies_forces_and_stresses_of_the_parts_of_a_cell_are_those_of_the_cell(make, parts):
    frame, model = make(), network()
    whole = Evaluator(model)(frame)
    for found, expected in zip(sums(Evaluator(model), frame, parts(frame)), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-11 * np.abs(expected).max())


def test_the_halo_is_all_that_an_energy_depends_on_and_no_more_is_evaluated():
    frame, model = wire(), network()
    own = np.arange(len(frame)) == 7
    near = with_halo(frame, own, model.interaction_range)
    assert len(near) < 0.8 * len(frame)
    gradient = Evaluator(model)(frame, own).forces
    assert set(np.flatnonzero(np.abs(gradient).max(1))) <= set(near)
    beyond = with_halo(
        frame, own, 0.7 * model.interaction_range
    )  # hops of one cut-off do reach further than two of them
    assert np.abs(np.delete(gradient, beyond, 0)).max() > 0


@pytest.mark.parametrize("pbc", [True, (True, False, True), False])
def test_atoms_within_reach_are_those_that_distances_over_all_images_say(pbc):
    rng = np.random.default_rng(0)
    cell = np.array([[9.0, 0, 0], [4.0, 8, 0], [-3.0, 2, 30]])
    frame = ase.Atoms("Ar60", scaled_positions=rng.uniform(-0.2, 1.2, (60, 3)), cell=cell, pbc=pbc)
    own = frame.positions[:, 2] < 4
    i, j = ase.neighborlist.neighbor_list("ij", frame, 7.0)
    expected = np.union1d(np.flatnonzero(own), j[own[i]])
    np.testing.assert_array_equal(with_halo(frame, own, 7.0), expected)
    assert len(with_halo(frame, np.zeros(60, bool), 7.0)) == 0


def test_a_part_is_followed_through_motion_and_strain_and_made_anew_when_a_far_atom_comes_near(rng):
    frame, model = wire(), argon(cutoff=3.4)
    frame.numbers[:] = 18
    evaluate = [Evaluator(model, skin=0.5) for _ in range(2)]
    for step in range(4):
        frame.positions += rng.normal(scale=0.02, size=frame.positions.shape)
        frame.set_cell(frame.cell.array @ (np.eye(3) + rng.normal(scale=0.002, size=(3, 3))), scale_atoms=True)
        frame.positions += rng.integers(-1, 2, frame.positions.shape) @ frame.cell.array
        parts = halves(frame) if step == 0 else parts  # noqa: F821
        found = [e(frame, own) for e, own in zip(evaluate, parts, strict=True)]
        whole = Evaluator(model)(frame)
        np.testing.assert_allclose(
            found[0].forces + found[1].forces, whole.forces, atol=1e-11 * np.abs(whole.forces).max()
        )
    assert [e.lists_made for e in evaluate] == [1, 1]
    assert evaluate[0].list_is_valid(frame)
    lone = np.flatnonzero(parts[1])[0]
    frame.positions[lone] += [0.3, 0, 0]
    assert not evaluate[0].list_is_valid(frame)


def test_a_part_without_atoms_contributes_nothing():
    frame = wire()
    found = Evaluator(network())(frame, np.zeros(len(frame), bool))
    assert all(not np.any(x) for x in found)
    assert found.forces.shape == (len(frame), 3)
