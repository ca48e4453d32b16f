"""The potential as an ASE calculator."""

import copy
import os
import pickle
import re
import select
import signal
from concurrent.futures import ThreadPoolExecutor

import ase
import jax
import numpy as np
import pytest
from argon import FCC, argon, laid_out
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from fusedff.interfaces.ase import FusedCalculator
from fusedff.potential import Potential


@pytest.fixture
def rattled():
    frame = bulk("Ar", "hcp", a=3.6, c=6.0) * (2, 1, 1)
    frame.rattle(0.08, seed=2)
    frame.calc = FusedCalculator(argon())
    return frame


def test_ase_sees_the_numbers_of_evaluate(rattled):
    expected = jax.jit(Potential.evaluate)(argon(), *laid_out(rattled, argon().cutoff))
    # slots are padded here, so sums run in another order
    close = {"rtol": 1e-10, "atol": 1e-13}
    np.testing.assert_allclose(rattled.get_potential_energy(), expected.energy[0], **close)
    np.testing.assert_allclose(rattled.get_forces(), expected.forces, **close)
    np.testing.assert_allclose(rattled.get_stress(), expected.stress[0], **close)


def test_ases_numerical_stress_agrees_in_sign_and_order(rattled):
    # central differences of strain 1e-5: errors of 1e-10 relative from the formula, 1e-9 from rounding
    numerical = calculate_numerical_stress(rattled, eps=1e-5)
    np.testing.assert_allclose(rattled.get_stress(), numerical, rtol=1e-5, atol=1e-9)


def test_a_rattled_squeezed_crystal_relaxes_to_fcc_at_its_equilibrium():
    frame = bulk("Ar", "fcc", a=FCC.a * 0.98)
    frame = frame * (2, 1, 1)
    frame.rattle(0.05, seed=4)
    frame.calc = FusedCalculator(argon())
    BFGS(FrechetCellFilter(frame), logfile=None).run(fmax=1e-4, steps=60)
    # twelve equal nearest-neighbour distances, and no stress left
    distances = np.sort(ase.neighborlist.neighbor_list("d", frame, 4.4))
    assert len(distances) == 12 * len(frame)
    assert np.ptp(distances) < 0.01
    assert distances.mean() * np.sqrt(2) == pytest.approx(FCC.a, abs=0.05)
    assert np.abs(frame.get_stress()).max() < 1e-5


def test_a_free_dimer_needs_no_cell_and_has_no_stress():
    r = 3.8
    dimer = ase.Atoms("Ar2", positions=[[0, 0, 0], [r, 0, 0]], calculator=FusedCalculator(argon()))
    expected = 4 * 0.0104 * ((3.4 / r) ** 12 - (3.4 / r) ** 6)
    assert dimer.get_potential_energy() == pytest.approx(expected, rel=1e-10)
    with pytest.raises(ase.calculators.calculator.PropertyNotImplementedError):
        dimer.get_stress()


def test_an_atom_alone_has_its_reference_energy():
    atom = ase.Atoms("Ar", cell=30 * np.eye(3), pbc=True, calculator=FusedCalculator(argon()))
    assert atom.get_potential_energy() == pytest.approx(0.0, abs=1e-15)
    np.testing.assert_allclose(atom.get_forces(), 0, atol=1e-15)


def test_an_element_it_was_not_trained_on_is_refused(rattled):
    rattled.symbols[0] = "Ti"
    with pytest.raises(ValueError, match="knows Ar but not Ti"):
        rattled.get_potential_energy()


def test_threads_that_share_a_calculator_each_get_the_numbers_of_their_own_structure():
    frames = [bulk("Ar", "fcc", a=a, cubic=True) * (1, 1, n) for n, a in ((1, 5.2), (2, 5.3), (1, 5.4), (2, 5.1))]
    expected = [FusedCalculator(argon()).get_potential_energy(frame) for frame in frames]
    shared = FusedCalculator(argon())

    def ask(k):
        for _ in range(20):
            frame = frames[k].copy()
            frame.calc = shared
            yield frame.get_potential_energy(), len(frame.get_forces())

    with ThreadPoolExecutor(4) as pool:
        for found, energy, frame in zip(pool.map(lambda k: list(ask(k)), range(4)), expected, frames, strict=True):
            np.testing.assert_allclose([e for e, _ in found], energy, rtol=1e-10)
            assert {n for _, n in found} == {len(frame)}


def test_a_copy_of_a_calculator_works(rattled):
    expected = rattled.get_potential_energy()
    for other in (copy.deepcopy(rattled.calc), pickle.loads(pickle.dumps(rattled.calc))):
        other.reset()
        assert other.get_potential_energy(rattled) == pytest.approx(expected, rel=1e-12)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning", "ignore:This process:DeprecationWarning")
def test_a_fork_after_first_use_is_one_clear_error_and_no_hang(rattled):
    rattled.get_potential_energy()
    rattled.positions[0, 0] += 0.01
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            os.write(write, f"{rattled.get_potential_energy()}".encode())
        except RuntimeError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], 60)
        assert ready, "the child hangs"
        said = os.read(read, 1000).decode()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
    assert re.search(r"forked after jax had started.*get_context\('spawn'\)", said)
    assert np.isfinite(rattled.get_potential_energy())  # here, all is well
