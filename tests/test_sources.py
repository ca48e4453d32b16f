"""Training on frames of several calculations: zeros of energy, weights, batches by atoms, averaged parameters."""

from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
import resuming
from argon import argon, evaluate, labelled
from ase import Atoms
from ase.build import bulk

from fusedff import tables
from fusedff.data.batching import FrameStore
from fusedff.training import force_matching, force_matching_loss, label_errors, outliers, validation_loss
from fusedff.training.config import ForceMatchingConfig
from fusedff.training.force_matching import ForceMatchingTrainer
from fusedff.training.validation_loss import ValidationLoss

TRUTH = replace(argon(), source="one")
START = replace(argon(epsilon=0.0085, sigma=3.3), source="one")
SHIFT = -1.25  # eV per atom, of the zero of the other source
SETTINGS = ForceMatchingConfig(
    epochs=6, batch_atoms=12, learning_rate=2e-4, final_learning_rate=1e-4, energy_weight=2.0, virial_weight=0.0
)

loss = jax.jit(force_matching_loss.loss, static_argnums=0)


@jax.jit
def mean_squared_errors(potential, batch):
    return force_matching_loss.mean_squares(force_matching_loss.deviations(potential, batch), batch)


@cache
def frames(n=12):
    """Argon cells of 1, 2 and 4 atoms, dense and not, of two sources in turn; the second has another zero of energy."""
    made = []
    for k in range(n):
        a = 4.6 if k % 3 == 0 else 5.3 + 0.02 * k  # within the cut-off, the dense ones have half as many again
        frame = [
            bulk("Ar", "fcc", a=a),
            bulk("Ar", "hcp", a=a / 2**0.5, c=1.2 * a),
            bulk("Ar", "fcc", a=a, cubic=True),
        ][k % 4 % 3]
        frame.rattle(0.05, seed=k)
        frame = labelled(frame, TRUTH)
        frame.info.update(config_type=f"kind-{k % 2}-{k % 4 // 2}", source=("one", "other")[k % 2])
        if k % 2:
            frame.calc.results["energy"] += SHIFT * len(frame)
        made.append(frame)
    return tuple(made)


def validation(trainer, settings, n=12):
    return ValidationLoss(settings, START, frames(n), trainer.store.offset_of, trainer.zeros)


def test_the_potential_that_made_the_labels_has_no_error_whatever_the_zero_of_each_source():
    trainer = ForceMatchingTrainer(SETTINGS, TRUTH, frames())
    assert trainer.store.offset_of == [("other", 18)]
    np.testing.assert_allclose(trainer.zeros, [SHIFT], atol=1e-9)
    for indices in trainer.batches(0):
        batch = trainer.store.batch(indices, len(indices), int(trainer.store.sizes[indices].sum()))
        assert float(loss(SETTINGS, TRUTH, batch)) < 1e-18
    found = label_errors.errors(TRUTH, frames())
    assert found["energy_rmse_meV_per_atom"] < 1e-8


def test_zeros_follow_the_network_while_it_learns():
    """From a potential whose energies are off, the fitted zero is off, too; at the end both are less so."""
    trainer = ForceMatchingTrainer(replace(SETTINGS, epochs=300), replace(START, params=TRUTH.params), frames())
    wrong = trainer.init(TRUTH.params)
    off = 0.05
    wrong = wrong._replace(optimizer=wrong.optimizer._replace(offsets=wrong.optimizer.offsets + off))
    state, distance = wrong, []
    for n in range(40):
        state, _ = trainer.epoch(state._replace(params=TRUTH.params), n)
        distance.append(abs(float(state.optimizer.offsets[0])))
    steps = 40 * len(trainer.batches(0))
    with_other = sum(any(trainer.store.sources[k] == "other" for k in b) for n in range(40) for b in trainer.batches(n))
    assert with_other <= steps
    # each batch that holds a frame of the source takes away `ZERO_RATE` of what is left
    assert distance[-1] == pytest.approx(off * (1 - force_matching.ZERO_RATE) ** with_other, rel=0.05)


def test_frames_of_two_sources_need_a_potential_that_says_whose_zero_it_has():
    with pytest.raises(ValueError, match=r"2 sources \('one', 'other'\) .*Potential\.create\(\.\.\., source=\.\.\.\)"):
        ForceMatchingTrainer(SETTINGS, replace(START, source=""), frames())
    given = frames()
    with pytest.raises(ValueError, match="source 'other' are held out, but none of it are learned from"):
        force_matching.train(START, given[::2], given[1::2], SETTINGS)


def test_weights_multiply_the_squared_errors_of_a_source_and_tame_frames_of_large_forces_and_stresses():
    given = frames()
    settings = replace(SETTINGS, source_weights=(("one", 1.5),), force_scale=0.2)
    trainer = ForceMatchingTrainer(settings, START, given)
    # an atom's share of a face of a cube of its volume: a perfect crystal under pressure has no other force
    stress = [f.calc.results["stress"] * (f.get_volume() / len(f)) ** (2 / 3) for f in given]
    squared = [np.mean(f.calc.results["forces"] ** 2) + np.mean(s**2) for f, s in zip(given, stress, strict=True)]
    expected = np.where(np.arange(12) % 2, 1.0, 1.5) / (1 + np.array(squared) / 0.2**2)
    np.testing.assert_allclose(trainer.store.weight, expected, rtol=1e-12)
    weight, plain = expected.copy(), ForceMatchingTrainer(SETTINGS, START, given).store
    indices = np.array([1, 2, 3])
    size = int(plain.sizes[indices].sum())
    plain.energy = trainer.store.energy  # with the same fitted zero
    weighted = float(loss(settings, START, trainer.store.batch(indices, 4, size + 3)))
    alone = [
        mean_squared_errors(START, plain.batch(indices[k : k + 1], 1, int(plain.sizes[indices[k]]))) for k in range(3)
    ]
    energy, force = (
        np.mean([w * float(e[name]) for w, e in zip(weight[indices], alone, strict=True)])
        for name in ("energy", "force")
    )
    assert weighted == pytest.approx(settings.energy_weight * energy + force, rel=1e-9)


def test_large_weights_of_a_source_are_repetitions_of_its_frames():
    """Those of a weight of 3.5 come three times with a weight of 7/6: batches of few such frames would be noisy."""
    settings = replace(SETTINGS, source_weights=(("one", 3.5),))
    trainer = ForceMatchingTrainer(settings, START, frames(24))
    for batches in (
        trainer.batches(0),
        ForceMatchingTrainer(replace(settings, batch_atoms=None), START, frames(24)).batches(0),
    ):
        times = np.bincount(np.concatenate(batches))
        np.testing.assert_array_equal(times, np.where(np.arange(24) % 2, 1, 3))
        np.testing.assert_allclose(times * trainer.store.weight, np.where(np.arange(24) % 2, 1, 3.5))
    np.testing.assert_allclose(validation(trainer, settings, 24).store.weight, times * trainer.store.weight)


def test_batches_by_atoms_hold_every_frame_once_and_about_equally_many_atoms():
    trainer = ForceMatchingTrainer(SETTINGS, START, frames(24))
    sizes, first, second = trainer.store.sizes, trainer.batches(0), trainer.batches(1)
    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second)) == list(range(24))
    assert np.concatenate(first).tolist() != np.concatenate(second).tolist()
    for capacity in np.unique(trainer.capacities):
        atoms = [sizes[b].sum() for b in first if trainer.capacities[b[0]] == capacity]
        assert max(atoms) <= SETTINGS.batch_atoms + sizes.max()
        assert np.ptp(atoms) <= sizes.max()
    for n in range(5):  # the shape that was compiled is enough for all epochs
        assert max(sizes[b].sum() for b in trainer.batches(n)) <= trainer.n_atoms
        assert max(map(len, trainer.batches(n))) <= trainer.n_frames


def test_frames_with_few_neighbours_do_not_pay_for_those_with_many():
    store = FrameStore(frames(24), START.cutoff)
    capacities = store.capacities()
    assert len(np.unique(capacities)) == 2
    assert (store.needed <= capacities).all()
    assert store.sizes @ capacities < 0.9 * store.sizes.sum() * store.capacity
    trainer = ForceMatchingTrainer(SETTINGS, START, frames(24))
    for batch in trainer.batches(0):
        assert len(set(trainer.capacities[batch])) == 1


def test_a_batch_with_more_slots_than_its_frames_need_gives_the_same_numbers():
    store = FrameStore(frames(), START.cutoff)
    few = np.flatnonzero(store.needed < store.capacity)[:3]
    n = int(store.sizes[few].sum())
    tight, roomy = (store.collate(few, 3, n, capacity) for capacity in (store.needed[few].max(), store.capacity))
    assert tight.neighbors.source.shape[1] < roomy.neighbors.source.shape[1]
    one, two = (evaluate(START, b.system, b.neighbors) for b in (tight, roomy))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


def test_the_average_of_the_parameters_is_what_training_returns():
    settings = replace(SETTINGS, ema=0.9, epochs=3)
    trained, history = force_matching.train(START, frames(), frames(), settings)
    trainer = ForceMatchingTrainer(settings, START, frames())
    state, average, done = trainer.init(START.params), float(START.params["sigma"][0]), 0
    for n in range(settings.epochs):
        for batch in trainer._chunks(n):
            before = state
            trainer_chunks = trainer._chunks
            trainer._chunks = lambda n, batch=batch: [batch]
            state, _ = trainer.epoch(before, n)
            trainer._chunks = trainer_chunks
            done += len(batch)
    assert int(state.optimizer.step) == done
    assert float(trained.params["sigma"][0]) == pytest.approx(float(state.optimizer.average["sigma"][0]), rel=1e-12)
    assert float(trained.params["sigma"][0]) != float(state.params["sigma"][0])
    low, high = sorted([average, float(state.params["sigma"][0])])
    assert low < float(trained.params["sigma"][0]) < high  # it lags behind
    assert history[-1]["validation"] < history[0]["validation"]


def test_an_interrupted_training_on_two_sources_ends_bit_for_bit_where_it_would_have(tmp_path, monkeypatch):
    settings = replace(SETTINGS, ema=0.95, clip=1.0, force_scale=0.5, source_weights=(("one", 3.0),), epochs=4)
    path = tmp_path / "checkpoint.safetensors"
    resuming.check(
        lambda *checkpoint: force_matching.train(START, frames()[:8], frames()[8:], settings, *checkpoint),
        ForceMatchingTrainer, "epoch", 2, path, monkeypatch,
    )  # fmt: skip
    renamed = [Atoms(frame, calculator=frame.calc, info=dict(frame.info)) for frame in frames()[:8]]
    renamed[1].info["source"] = "one"
    with pytest.raises(ValueError, match=r"other data \(labels of the training frames"):
        force_matching.train(START, renamed, frames()[8:], settings, path)


def test_validation_in_several_batches_is_validation_in_one():
    trainer = ForceMatchingTrainer(SETTINGS, START, frames())
    parts = validation(trainer, SETTINGS)
    assert len(parts.batches) > 1
    whole = validation(trainer, replace(SETTINGS, batch_atoms=None))
    assert len(whole.batches) == 1
    offsets = trainer.init(START.params).optimizer.offsets
    assert parts(START.params, offsets) == pytest.approx(whole(START.params, offsets), rel=1e-9)


def test_validation_takes_no_more_atoms_at_once_than_a_prediction(monkeypatch):
    """All validation frames at once may need more memory than a batch of the training."""
    monkeypatch.setattr(validation_loss, "ATOMS_AT_ONCE", 12)
    settings = replace(SETTINGS, batch_atoms=None)
    assert len(validation(ForceMatchingTrainer(settings, START, frames()), settings).batches) > 1


def test_a_source_that_does_not_count_has_its_zero_all_the_same():
    trainer = ForceMatchingTrainer(replace(SETTINGS, source_weights=(("other", 0.0),)), TRUTH, frames())
    np.testing.assert_allclose(trainer.zeros, [SHIFT], atol=1e-9)


def test_errors_by_source_and_family_are_the_errors_of_these_frames():
    given = frames()
    rows = label_errors.errors_by_family(START, given)
    assert [(row["source"], row["family"], row["n_frames"]) for row in rows] == [
        ("one", "all", 6), ("one", "kind-0-0", 3), ("one", "kind-0-1", 3),
        ("other", "all", 6), ("other", "kind-1-0", 3), ("other", "kind-1-1", 3),
    ]  # fmt: skip
    mine = [f for f in given if f.info["config_type"] == "kind-0-1"]
    said = [labelled(f, START) for f in mine]
    off = np.concatenate([(a.get_forces() - b.get_forces()).ravel() for a, b in zip(said, mine, strict=True)])
    assert rows[2]["force_rmse_meV_per_A"] == pytest.approx(1e3 * np.sqrt(np.mean(off**2)), rel=1e-9)
    assert rows[2]["force_mae_meV_per_A"] == pytest.approx(1e3 * np.mean(np.abs(off)), rel=1e-9)
    energy = [(a.get_potential_energy() - b.get_potential_energy()) / len(a) for a, b in zip(said, mine, strict=True)]
    assert rows[2]["energy_rmse_meV_per_atom"] == pytest.approx(1e3 * np.sqrt(np.mean(np.square(energy))), rel=1e-9)
    # the other source's own zero: errors of energy average to nothing
    assert rows[3]["energy_rmse_meV_per_atom"] < 1e3 * abs(SHIFT) / 2
    text = tables.error_table({"dft": rows, "fused": rows})
    assert [len(block.splitlines()) for block in text.split("\n\n")] == [1 + len(rows)] * 2  # a block per model
    assert f"{rows[0]['force_rmse_meV_per_A']:.0f} / {rows[0]['force_mae_meV_per_A']:.0f}" in text


def test_a_family_called_all_leaves_the_row_of_all_frames():
    given = frames()
    given[0].info["config_type"] = "all"
    rows = [(row["family"], row["n_frames"]) for row in label_errors.errors_by_family(START, given)]
    assert ("all", 6) in rows
    assert ("all", 1) in rows


def test_another_zero_of_energy_is_no_outlier_where_it_belongs_to_another_source():
    given = frames(24)
    trainer = ForceMatchingTrainer(SETTINGS, TRUTH, given)
    assert outliers.find(TRUTH, given, [trainer.store]) == []


@pytest.mark.parametrize(("name", "value"), [("ema", 1.0), ("clip", 0.0), ("force_scale", -1.0), ("batch_atoms", 0)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"ForceMatchingConfig: {name} = "):
        ForceMatchingConfig(**{name: value})
    with pytest.raises(ValueError, match="source_weights"):
        ForceMatchingConfig(source_weights=(("one", -1.0),))


@pytest.mark.parametrize("batches", [{"batch": 3}, {"batch_atoms": 9}])
def test_frames_of_small_weight_take_turns(batches):
    """Every frame comes as often as its weight says, whichever epochs they are, and counts alike when it comes."""
    settings = replace(SETTINGS, source_weights=(("other", 0.3), ("one", 2.0)), **batches)
    trainer = ForceMatchingTrainer(settings, START, frames())
    seen = [np.bincount(np.concatenate(trainer.batches(n)), minlength=12) for n in range(6)]
    of_other = np.arange(12) % 2 == 1
    for k in range(4):  # three epochs in a row show all of them
        np.testing.assert_array_equal(np.sum(seen[k : k + 3], 0), np.where(of_other, 1, 6))
    assert all(shown[of_other].sum() == 2 for shown in seen)
    np.testing.assert_allclose(trainer.store.weight, np.where(of_other, 0.9, 1.0))
    state = trainer.init(START.params)
    for n in range(3):  # in arrays of one shape
        state, value = trainer.epoch(state, n)
        assert np.isfinite(value)


def test_no_epoch_is_empty_however_small_the_weight():
    trainer = ForceMatchingTrainer(replace(SETTINGS, source_weights=(("one", 0.0), ("other", 1e-6))), START, frames())
    assert all(len(np.concatenate(trainer.batches(n))) == 2 for n in range(12))
