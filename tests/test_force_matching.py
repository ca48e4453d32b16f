"""Force matching: the loss and its gradient are right, and training finds known parameters."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import resuming
from argon import argon, labelled
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from fusedff.data.batching import FrameStore
from fusedff.data.datasets import load_frames
from fusedff.interfaces.ase import FusedCalculator
from fusedff.network.dimenet import DimeNet
from fusedff.potential import Potential
from fusedff.training import force_matching, force_matching_loss, label_errors
from fusedff.training.config import ForceMatchingConfig
from fusedff.training.force_matching import ForceMatchingTrainer
from fusedff.units import GPA

TRUTH = argon()
START = argon(epsilon=0.0085, sigma=3.3)
SETTINGS = ForceMatchingConfig(
    epochs=5, batch=3, learning_rate=2e-4, final_learning_rate=1e-4, energy_weight=2.0, virial_weight=3.0
)


def frames():
    """Argon cells of 1, 2 and 4 atoms, rattled; the second has no stress."""
    made = [
        bulk("Ar", "fcc", a=5.2),
        bulk("Ar", "hcp", a=3.7, c=6.0),
        bulk("Ar", "fcc", a=5.3, cubic=True),
        bulk("Ar", "fcc", a=5.15, cubic=True),
        bulk("Ar", "fcc", a=5.4),
    ]
    for n, frame in enumerate(made):
        frame.rattle(0.08, seed=n)
    return [labelled(frame, TRUTH, stress=n != 1) for n, frame in enumerate(made)]


@pytest.fixture(scope="module")
def store():
    return FrameStore(frames(), TRUTH.cutoff)


@jax.jit
def errors_of(params, batch):
    deviations = force_matching_loss.deviations(TRUTH.with_params(params), batch)
    return force_matching_loss.mean_squares(deviations, batch)


def errors(store, indices, n_frames=None, n_atoms=None):
    indices = np.asarray(indices)
    batch = store.batch(indices, n_frames or len(indices), n_atoms or int(store.sizes[indices].sum()))
    return {name: float(value) for name, value in errors_of(START.params, batch).items()}


def test_the_potential_that_made_the_labels_has_no_error(store):
    indices = np.arange(5)
    batch = store.batch(indices, 5, int(store.sizes.sum()))
    for value in errors_of(TRUTH.params, batch).values():
        assert float(value) < 1e-24  # rounding, squared


def test_errors_are_means_over_frames_of_any_size(store):
    """The definition, frame by frame in numpy."""
    said = [labelled(frame, START) for frame in store.frames]
    energy = [
        (a.get_potential_energy() - b.get_potential_energy()) / len(a) for a, b in zip(said, store.frames, strict=True)
    ]
    force = [a.get_forces() - b.get_forces() for a, b in zip(said, store.frames, strict=True)]
    force = [np.mean(deviation**2) ** 0.5 for deviation in force]  # of each frame, however many atoms it has
    stressed = [n for n in range(5) if n != 1]
    stress = [said[n].get_stress() - store.frames[n].get_stress() for n in stressed]
    virial = [s * said[n].get_volume() / len(said[n]) for s, n in zip(stress, stressed, strict=True)]
    found = errors(store, range(5))
    for name, deviation in [("energy", energy), ("force", force), ("virial", virial), ("stress", stress)]:
        assert found[name] == pytest.approx(np.mean(np.square(deviation)), rel=1e-9)


def test_padding_changes_nothing(store):
    plain, padded = errors(store, [2, 0, 1]), errors(store, [2, 0, 1], n_frames=6, n_atoms=23)
    assert padded == pytest.approx(plain, rel=1e-12)


def test_a_frame_without_stress_contributes_no_virial(store):
    alone, pair = errors(store, [3]), errors(store, [3, 1])
    assert pair["virial"] == pytest.approx(alone["virial"], rel=1e-12)
    assert errors(store, [1])["virial"] == 0.0


@pytest.mark.parametrize("name", ["epsilon", "sigma"])
def test_the_gradient_of_the_loss_is_its_derivative(store, name):
    batch = store.batch(np.arange(5), 5, int(store.sizes.sum()))

    @jax.jit
    def value_and_grad(params):
        return jax.value_and_grad(lambda p: force_matching_loss.loss(SETTINGS, START.with_params(p), batch))(params)

    gradient, h = value_and_grad(START.params)[1], 1e-5 * float(START.params[name][0])
    up, down = (value_and_grad({**START.params, name: START.params[name] + s * h})[0] for s in (1, -1))
    assert float(gradient[name][0]) == pytest.approx(float(up - down) / (2 * h), rel=1e-6)


@pytest.mark.parametrize("stressed", [(0, 1, 2, 3, 4), (0, 2, 3, 4), (2, 3), ()])
def test_a_sketch_knows_what_a_step_does_to_the_loss(store, stressed):
    """Where all labels are met, the loss has no slope: a step raises it by |G d|^2, to second order.

    Also where few frames have a stress, over which alone the loss averages.
    """
    settings = replace(SETTINGS, virial_weight=30.0)
    frames = [labelled(frame, TRUTH, stress=n in stressed) for n, frame in enumerate(store.frames)]
    trainer = ForceMatchingTrainer(settings, TRUTH, frames)
    gauss_newton_sketch = trainer.gauss_newton_sketch(TRUTH.params, 0, 512)
    assert gauss_newton_sketch.shape == (512, 2)
    batch = trainer.store.batch(np.arange(5), 5, int(store.sizes.sum()))
    loss = jax.jit(lambda params: force_matching_loss.loss(settings, TRUTH.with_params(params), batch))
    for step in ({"epsilon": 1e-6, "sigma": 0.0}, {"epsilon": 0.0, "sigma": 1e-4}, {"epsilon": 1e-6, "sigma": -3e-5}):
        params = {name: TRUTH.params[name] + change for name, change in step.items()}
        rise = float(loss(params))
        # 512 random signs: the standard deviation of |G d|^2 is at most sqrt(2 / 512) = 6 % of it
        assert np.sum((gauss_newton_sketch @ list(step.values())) ** 2) == pytest.approx(rise, rel=0.15)


def test_training_moves_towards_the_parameters_that_made_the_labels():
    start = argon(epsilon=0.0085)
    trained, history = force_matching.train(start, frames()[:4], frames()[4:], SETTINGS)
    assert [record["epoch"] for record in history] == list(range(SETTINGS.epochs))
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert history[-1]["validation"] < history[0]["validation"]
    terms = [history[-1][f"validation_{name}"] for name in ("energy", "force", "virial")]
    assert min(terms) > 0
    assert sum(terms) == pytest.approx(history[-1]["validation"])
    before, after = (abs(float(p.params["epsilon"][0]) - 0.0104) for p in (start, trained))
    assert after < 0.6 * before


def test_an_interrupted_training_ends_bit_for_bit_where_it_would_have(tmp_path, monkeypatch):
    resuming.check(
        lambda *checkpoint: force_matching.train(START, frames()[:4], frames()[4:], SETTINGS, *checkpoint),
        ForceMatchingTrainer, "epoch", 2, tmp_path / "checkpoint.safetensors", monkeypatch,
    )  # fmt: skip


def test_a_network_learns_from_a_few_embedded_frames():
    small = sorted(load_frames(), key=len)[:4]
    network = DimeNet(
        cutoff=3.6, embedding=8, blocks=1, radial=4, spherical=3, interaction=4, basis=4, type_embedding=4, output=8,
        output_layers=1, layers_before_skip=0, layers_after_skip=1,
    )  # fmt: skip
    reference = np.mean([f.get_potential_energy() / len(f) for f in small])
    start = Potential.create(jax.random.key(0), network, {"Ti": reference})
    settings = ForceMatchingConfig(epochs=12, batch=2, learning_rate=1e-2, final_learning_rate=1e-3, energy_weight=10.0)
    _, history = force_matching.train(start, small, small, settings)
    assert min(record["validation"] for record in history) < 0.5 * history[0]["loss"]


def test_every_frame_is_seen_once_per_epoch_in_an_order_that_changes():
    matching_trainer = ForceMatchingTrainer(SETTINGS, START, frames())
    first, second = (np.concatenate(matching_trainer.batches(n)) for n in (0, 1))
    assert sorted(first) == sorted(second) == list(range(5))
    assert first.tolist() != second.tolist()
    np.testing.assert_array_equal(first, np.concatenate(matching_trainer.batches(0)))


def test_test_errors_are_mean_absolute_errors_in_the_units_of_their_names():
    given = frames()
    said = [labelled(frame, START) for frame in given]
    found = label_errors.errors(START, given)
    energy = np.mean(
        [abs(a.get_potential_energy() - b.get_potential_energy()) / len(a) for a, b in zip(said, given, strict=True)]
    )
    assert found["energy_mae_meV_per_atom"] == pytest.approx(1e3 * energy, rel=1e-9)
    force = np.concatenate([a.get_forces() - b.get_forces() for a, b in zip(said, given, strict=True)])
    assert found["force_mae_meV_per_A"] == pytest.approx(1e3 * np.abs(force).mean(), rel=1e-9)
    stress = [a.get_stress() - b.get_stress() for n, (a, b) in enumerate(zip(said, given, strict=True)) if n != 1]
    assert found["stress_mae_GPa"] == pytest.approx(np.abs(stress).mean() / GPA, rel=1e-9)


def test_a_molecule_without_a_cell_is_learned_from_as_in_a_large_one():
    """The volume of no cell is 0, which would make every loss nan."""
    free = [labelled(Atoms("Ar3", [[0, 0, 0], [r, 0, 0], [0, r, 0]]), argon(0.012), stress=False) for r in (3.7, 4.0)]
    boxed = [frame.copy() for frame in free]
    for frame, one in zip(boxed, free, strict=True):
        frame.set_cell(30 * np.eye(3))
        frame.calc = SinglePointCalculator(frame, **one.calc.results)
    settings = replace(SETTINGS, epochs=2, force_scale=0.1)
    (one, history), (other, _) = (force_matching.train(START, frames, frames, settings) for frames in (free, boxed))
    assert np.isfinite([record["loss"] for record in history]).all()
    np.testing.assert_allclose(one.params["epsilon"], other.params["epsilon"], rtol=1e-9)


@pytest.mark.parametrize("cell", [None, [20, 20, 20]])
def test_one_calculator_for_all_molecules_holds_the_labels_of_the_last_alone(cell):
    shared, frames = FusedCalculator(TRUTH), [Atoms("Ar2", [[0, 0, 0], [r, 0, 0]], cell=cell) for r in (3.6, 4.0)]
    for frame in frames:
        frame.calc = shared
        frame.get_potential_energy()
    with pytest.raises(ValueError, match="frame 0: atoms or cell were changed since they were labelled"):
        FrameStore(frames, 7.0)


def test_a_weight_of_no_source_is_a_warning():
    members = frames()
    for n, frame in enumerate(members):
        frame.info["source"] = ("gpaw", "vasp")[n % 2]
    settings, start = replace(SETTINGS, source_weights=(("vaps", 0.1),)), replace(START, source="gpaw")
    with pytest.warns(UserWarning, match="weight for 'vaps', but the training frames are of 'gpaw', 'vasp'"):
        ForceMatchingTrainer(settings, start, members)


def test_batches_of_one_frame_are_never_empty():
    """Where a source of small weight sits out an epoch, there were more batches than frames, and the loss was nan."""
    members = frames()
    for frame in members:
        frame.info["source"] = "other"
    settings = replace(SETTINGS, batch=1, source_weights=(("other", 0.5),))
    trainer = ForceMatchingTrainer(settings, START, members)
    assert all(len(batch) for n in range(4) for batch in trainer.batches(n))


def test_no_frames_and_unknown_elements_are_refused():
    with pytest.raises(ValueError, match="at least one labelled frame"):
        FrameStore([], 5.0)
    stranger = bulk("Ti", "fcc", a=5.2)
    stranger.calc = SinglePointCalculator(stranger, energy=0.0, forces=np.zeros((1, 3)))
    with pytest.raises(ValueError, match="knows Ar but not Ti"):
        ForceMatchingTrainer(SETTINGS, START, [stranger])
