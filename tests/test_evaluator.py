"""Repeated evaluation of a moving cell: the neighbour list is always complete."""

import jax
import numpy as np
import pytest
from argon import argon
from ase.build import bulk

from fusedff.geometry import neighbors, systems
from fusedff.interfaces.evaluator import Evaluator
from fusedff.potential import Potential

ARGON = argon()
DIRECTLY = jax.jit(Potential.evaluate)
CLOSE = {"rtol": 1e-10, "atol": 1e-13}  # sums run in another order


def assert_same_as_from_nothing(result, frame):
    near = neighbors.from_frames(frame, ARGON.cutoff, capacity=120)  # room enough to compile once
    expected = DIRECTLY(ARGON, systems.from_atoms(frame), near)
    for got, wanted in zip(result, expected, strict=True):
        np.testing.assert_allclose(got, wanted, **CLOSE)


@pytest.fixture
def frame():
    atoms = bulk("Ar", "hcp", a=3.72, c=6.1) * (2, 2, 1)
    atoms.rattle(0.05, seed=1)
    return atoms


def test_small_motion_strain_and_jumps_across_the_boundary_reuse_the_list(frame, rng):
    evaluate = Evaluator(ARGON, skin=1.0)
    assert_same_as_from_nothing(evaluate(frame), frame)
    for _ in range(3):
        frame.positions += rng.normal(scale=0.03, size=frame.positions.shape)
        frame.set_cell(frame.cell.array @ (np.eye(3) + rng.normal(scale=0.005, size=(3, 3))), scale_atoms=True)
        frame.positions += rng.integers(-2, 3, frame.positions.shape) @ frame.cell.array
        assert_same_as_from_nothing(evaluate(frame), frame)
    assert evaluate.lists_made == 1


def test_a_list_is_made_again_as_soon_as_a_pair_could_be_missing(frame, rng):
    evaluate = Evaluator(ARGON, skin=0.4)
    evaluate(frame)
    for scale in (0.9, 1.1):  # strain alone
        frame.set_cell(frame.cell.array * scale, scale_atoms=True)
        assert_same_as_from_nothing(evaluate(frame), frame)
    assert evaluate.lists_made == 2  # a cell that grows loses no pairs
    for _ in range(15):  # motion alone
        frame.positions += rng.normal(scale=0.1, size=frame.positions.shape)
        assert_same_as_from_nothing(evaluate(frame), frame)
    assert 3 < evaluate.lists_made < 17


def test_denser_frames_other_sizes_and_open_boundaries_take_turns(frame):
    evaluate = Evaluator(ARGON)
    dense, large, slab = frame.copy(), frame * (1, 1, 2), frame.copy()
    dense.set_cell(dense.cell.array * 0.85, scale_atoms=True)
    slab.pbc = (True, True, False)
    for cell in (frame, dense, large, slab, frame):
        assert_same_as_from_nothing(evaluate(cell), cell)


def test_positions_that_are_no_numbers_are_named(frame):
    frame.positions[5, 1] = np.nan
    with pytest.raises(ValueError, match=r"atom 5 \(Ar\) is not at a finite position; in a simulation, use a"):
        Evaluator(ARGON)(frame)
