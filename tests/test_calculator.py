"""The potential as an ASE calculator."""

import copy
import importlib.metadata
import os
import pickle
import re
import select
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import ase
import jax
import numpy as np
import pytest
from argon import FCC, argon, laid_out
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_stress
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

import fusedff
from fusedff import potential as potential_module
from fusedff.interfaces.ase import FusedCalculator
from fusedff.interfaces.evaluator import Evaluator, _evaluate
from fusedff.potential import Potential
from fusedff.study.run_folder import MODELS
from fusedff.units import GPA


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


def test_a_slab_has_a_stress_along_its_surface(rattled):
    """As in ASE: a cell with a volume has a stress, and an open side with enough vacuum changes nothing."""
    slab = ase.Atoms(rattled, calculator=FusedCalculator(argon()))
    slab.center(vacuum=6.0, axis=2)
    periodic = slab.copy()
    periodic.calc, slab.pbc = slab.calc, (True, True, False)
    np.testing.assert_allclose(slab.get_stress(), periodic.get_stress(), atol=1e-14)
    numerical = calculate_numerical_stress(slab, eps=1e-5)
    np.testing.assert_allclose(slab.get_stress()[[0, 1, 5]], numerical[[0, 1, 5]], rtol=1e-5, atol=1e-9)


def test_energies_of_the_atoms_are_those_of_their_surroundings(rattled):
    """Of atoms far apart each has its own: in a pair half of that of the pair, and alone nothing."""
    r = 3.8
    atoms = ase.Atoms("Ar3", positions=[[0, 0, 0], [r, 0, 0], [50, 0, 0]])
    atoms.calc = FusedCalculator(replace(argon(), reference=(-2.0,)))
    pair = 4 * 0.0104 * ((3.4 / r) ** 12 - (3.4 / r) ** 6)
    np.testing.assert_allclose(atoms.get_potential_energies(), [pair / 2 - 2, pair / 2 - 2, -2], rtol=1e-12)
    assert rattled.get_potential_energies().sum() == pytest.approx(rattled.get_potential_energy(), rel=1e-12)


def test_numbers_of_atoms_that_differ_a_little_share_compiled_code():
    calc, chain = FusedCalculator(argon()), ase.Atoms("Ar16", positions=[[3.8 * n, 0, 0] for n in range(16)])
    pair = 4 * 0.0104 * ((3.4 / 3.8) ** 12 - (3.4 / 3.8) ** 6)  # the cut-off reaches no further
    before = _evaluate._cache_size()
    for n in range(9, 17):
        assert calc.get_potential_energy(chain[:n]) == pytest.approx((n - 1) * pair, rel=1e-10)
    assert _evaluate._cache_size() == before + 1


def test_a_program_that_speaks_the_protocol_of_i_pi_gets_energy_forces_and_stress(rattled):
    """ASE plays that program, in a thread of its own; the answers come through a socket."""
    name, asked = f"fusedff-test-{os.getpid()}", rattled.copy()

    def drive():
        with SocketIOCalculator(unixsocket=name, timeout=30) as program:
            asked.calc = program
            found.extend([asked.get_potential_energy(), asked.get_forces(), asked.get_stress()])

    found, program = [], threading.Thread(target=drive)
    program.start()
    served = rattled.copy()
    served.calc = FusedCalculator(argon())
    for _ in range(1000):  # until the program listens
        try:
            client = SocketClient(unixsocket=name)
            break
        except OSError:
            time.sleep(0.01)
    client.run(served, use_stress=True)
    program.join()
    expected = rattled.get_potential_energy(), rattled.get_forces(), rattled.get_stress()
    for answer, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(answer, right, rtol=1e-10, atol=1e-12)


def test_a_calculator_without_a_structure_says_so():
    with pytest.raises(ValueError, match=r"no structure is given; set atoms\.calc"):
        FusedCalculator(argon()).get_potential_energy()


@pytest.mark.parametrize(("structure", "a"), [("fcc", 5 / 1.5**0.5), ("bcc", 5 / 2**0.5)])
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_a_crystal_with_a_shell_at_the_cutoff_has_no_forces(structure, a, repeats):
    """Rounding must not put a pair within the cut-off in one direction and outside in the other one."""
    atoms = bulk("Ti", structure, a=a, cubic=True) * ((repeats,) * 3)
    atoms.positions += [0.37, 1.91, 0.11]
    atoms.calc = FusedCalculator(fusedff.load("titanium-fused"))
    assert np.abs(atoms.get_forces()).max() < 1e-4
    assert np.ptp(atoms.get_stress()[:3]) < 1e-4 * GPA


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


def test_calculate_without_atoms_takes_the_last(rattled):
    expected = rattled.get_stress()
    rattled.calc.reset()
    rattled.calc.atoms = rattled.copy()
    rattled.calc.calculate(properties=["stress"])
    np.testing.assert_allclose(rattled.calc.results["stress"], expected, rtol=1e-12)


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


COMMITTEE = [argon(epsilon) for epsilon in (0.010, 0.011, 0.015)]  # mean 0.012, standard deviation sqrt(7) / 1000 eV


def test_a_committee_gives_the_mean_and_the_standard_deviation_of_its_members(rattled):
    """All is in proportion to the well depth of Lennard-Jones: so are the mean and the spread."""
    mean, spread = FusedCalculator(argon(0.012)), 7**0.5 / 12
    rattled.calc = FusedCalculator(COMMITTEE)
    for name in ("energy", "free_energy", "forces", "stress"):
        expected = mean.get_property(name, rattled)
        np.testing.assert_allclose(rattled.calc.get_property(name, rattled), expected, rtol=1e-9, atol=1e-12)
        if name != "free_energy":
            found = rattled.calc.get_property(f"{name}_std", rattled)
            np.testing.assert_allclose(found, spread * np.abs(expected), rtol=1e-9, atol=1e-12)
            assert np.shape(found) == np.shape(expected)
    each = rattled.calc.get_property("forces_comm", rattled)
    np.testing.assert_allclose(each[2], 1.25 * rattled.get_forces(), rtol=1e-9, atol=1e-12)


def test_members_may_differ_in_cutoff_and_in_their_zero_of_energy(rattled):
    """A longer cut-off reaches pairs that the other members do not count."""
    members = [argon(), replace(argon(cutoff=5.5), reference=(-2.0,))]
    alone = [Evaluator(member)(rattled) for member in members]
    found = Evaluator(members)(rattled)
    for value, *parts in zip(found, *alone, strict=True):
        np.testing.assert_allclose(value, np.mean(parts, 0), rtol=1e-9, atol=1e-12)
    rattled.calc = FusedCalculator(members)
    difference = alone[0].energy[0] - alone[1].energy[0]
    assert difference > len(rattled)  # the zeros are 2 eV per atom apart
    assert rattled.calc.get_property("energy_std", rattled) == pytest.approx(difference / 2**0.5)


def test_members_that_differ_in_parameters_alone_share_compiled_code_and_list(rattled):
    evaluate = Evaluator([replace(member, reference=(float(n),)) for n, member in enumerate(COMMITTEE)])
    before = _evaluate._cache_size()
    evaluate(rattled)
    assert _evaluate._cache_size() <= before + 1
    assert evaluate.lists_made == 1


def test_one_member_is_no_committee(rattled):
    alone = FusedCalculator([argon()])
    assert alone.implemented_properties == rattled.calc.implemented_properties
    assert alone.get_potential_energy(rattled) == rattled.get_potential_energy()
    assert set(alone.results) == {"energy", "free_energy", "energies", "forces", "stress"}
    with pytest.raises(ValueError, match=r"warn_above = 0\.3, but one potential has no spread"):
        FusedCalculator(argon(), warn_above=0.3)


def test_a_committee_without_members_or_of_different_species_is_refused():
    with pytest.raises(ValueError, match="without members; give at least one"):
        FusedCalculator([])
    with pytest.raises(ValueError, match="member 0 of the committee is of Ar, member 1 of Ne; give potentials of one"):
        FusedCalculator([argon(), replace(argon(), numbers=(10,))])
    with pytest.raises(TypeError, match="'titanium-dft' is no potential"):
        FusedCalculator([argon(), "titanium-dft"])


def test_members_whose_energies_have_different_zeros_are_refused():
    """The zeros of two DFT calculations may be tenths of an eV per atom apart, and no mean over them is an energy."""
    with pytest.raises(ValueError, match="member 0 .* source 'gpaw', those of member 2 from that of 'vasp', so that"):
        FusedCalculator([replace(argon(), source=source) for source in ("gpaw", "gpaw", "vasp")])


@pytest.mark.parametrize("model", MODELS)
def test_members_that_ship_agree_on_the_energy_of_the_crystal(model):
    atoms = bulk("Ti", "hcp", a=2.944, c=4.678)
    atoms.calc = FusedCalculator(fusedff.load_committee(f"titanium-{model}"))
    assert atoms.calc.get_property("energy_std", atoms) / len(atoms) < 0.05  # eV


def test_where_the_members_disagree_a_warning_says_so_once(rattled):
    forces = np.linalg.norm(rattled.get_forces(), axis=1)
    spread = forces * 7**0.5 / 10.4
    quiet = FusedCalculator(COMMITTEE, warn_above=1.01 * spread.max())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet.get_forces(rattled)
    rattled.calc = FusedCalculator(COMMITTEE, warn_above=0.99 * spread.max())
    with pytest.warns(UserWarning, match=rf"on atom {forces.argmax()} has .* {spread.max():.3g} eV/Å.*\(said once\)"):
        rattled.get_forces()
    rattled.rattle(0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rattled.get_forces()


def test_the_package_itself_offers_what_a_user_needs_first():
    assert isinstance(fusedff.load("titanium-fused"), fusedff.Potential)
    assert fusedff.FusedCalculator is FusedCalculator
    assert fusedff.__version__ == importlib.metadata.version("fusedff")
    with pytest.raises(AttributeError, match="'fusedff' has no attribute 'Trainer'"):
        fusedff.Trainer  # noqa: B018


def test_a_committee_is_a_model_that_ships_and_those_of_other_seeds(monkeypatch, tmp_path):
    shipped = fusedff.load("titanium-fused")
    for name in ("titanium-fused", "titanium-fused-seed2", "titanium-fused-seed1", "titanium-dft-seed1"):
        shipped.save(tmp_path / f"{name}.safetensors", of=name)
    monkeypatch.setattr(potential_module, "FILES", tmp_path)
    assert len(fusedff.load_committee("titanium-fused")) == 3
    assert len(fusedff.load_committee("titanium-fused-seed1")) == 1
    with pytest.raises(FileNotFoundError, match="ships"):
        fusedff.load_committee("copper-fused")
