"""The training loop: stopping, resuming and reporting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusedff.runtime import progress, storage
from fusedff.training import loop
from fusedff.training.loop import TrainState

SETTINGS = {"rate": 0.1, "shape": (2, 3)}


def train_state():
    return TrainState({"x": jnp.array([1.0, -2.0])}, (jnp.zeros(2),), {"seen": jnp.int32(0)})


def epoch(state, n):
    """A noisy, stateful step: wrong in any bit if anything is forgotten on the way."""
    noise = jax.random.normal(jax.random.fold_in(jax.random.PRNGKey(3), n), (2,))
    momentum = 0.9 * state.optimizer[0] - 0.1 * (state.params["x"] + 0.3 * noise)
    params = {"x": state.params["x"] + momentum}
    extra = {"seen": state.extra["seen"] + 1}
    return TrainState(params, (momentum,), extra), {"loss": jnp.sum(params["x"] ** 2)}


def interrupted_at(when):
    def step(state, n):
        if n == when:
            raise KeyboardInterrupt
        return epoch(state, n)

    return step


def train(step=epoch, epochs=9, checkpoint=None, settings=SETTINGS, **options):
    return loop.train(step, train_state(), epochs, name="toy", settings=settings, checkpoint=checkpoint, **options)


def assert_equal(first, second):
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("watch", [None, "loss"])
def test_an_interrupted_run_ends_bit_for_bit_where_an_uninterrupted_one_ends(tmp_path, watch):
    whole = train(watch=watch)
    path = tmp_path / "checkpoint.safetensors"
    for when in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            train(interrupted_at(when), checkpoint=path, watch=watch)
    resumed = train(checkpoint=path, watch=watch)
    assert_equal(resumed.train_state, whole.train_state)
    assert_equal(resumed.params, whole.params)
    assert resumed.history == whole.history
    assert [record["epoch"] for record in resumed.history] == list(range(9))


def test_a_finished_run_is_not_run_again(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    done = train(checkpoint=path)
    again = train(interrupted_at(0), checkpoint=path)
    assert_equal(again.train_state, done.train_state)
    assert again.history == done.history


def test_the_best_epoch_by_the_watched_number_is_kept():
    losses = [3.0, 1.0, 2.0, 5.0]

    def step(state, n):
        return state._replace(params={"x": jnp.full(2, float(n))}), {"loss": losses[n]}

    assert train(step, 4, watch="loss").params["x"][0] == 1.0
    assert train(step, 4).params["x"][0] == 3.0  # nothing watched: the last


def test_patience_stops_a_run_that_no_longer_improves_also_after_an_interruption(tmp_path):
    def step(state, n):
        return state, {"loss": abs(n - 2)}

    whole = train(step, 20, watch="loss", patience=3)
    assert len(whole.history) == 6  # the best is epoch 2, then three without a better one

    def stopped(state, n):
        if n == 4:
            raise KeyboardInterrupt
        return step(state, n)

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(stopped, 20, checkpoint=path, watch="loss", patience=3)
    assert train(step, 20, checkpoint=path, watch="loss", patience=3).history == whole.history


def test_an_optimizer_that_overflowed_is_not_saved(tmp_path):
    """In single precision the square of one huge gradient is infinite, and its parameter would never move again."""
    path = tmp_path / "checkpoint.safetensors"

    def step(state, n):
        state, record = epoch(state, n)
        return (state._replace(optimizer=(jnp.array([1.0, jnp.inf]),)) if n == 2 else state), record

    with pytest.raises(loop.DivergedError, match="toy, epoch 2: moments of the optimizer are not finite; .* the epoch"):
        train(step, checkpoint=path)
    assert len(storage.read_metadata(path)["history"]) == 2


def test_changed_settings_are_refused_by_name(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match=r"checkpoint.safetensors .*other settings \(rate differ.*delete it"):
        train(checkpoint=path, settings={**SETTINGS, "rate": 0.2})


DATA = {"labels of the frames": [np.ones(3)], "target": {"C11": 176.0}}


@pytest.mark.parametrize(("changes", "named"), [
    ({"labels of the frames": [np.full(3, 1 + 1e-15)]}, "labels of the frames"),
    ({"target": {"C11": 175.9}}, "target"),
    ({"start parameters": np.zeros(2)}, "start parameters"),
])  # fmt: skip
def test_a_checkpoint_that_learned_from_other_data_is_refused_by_name(tmp_path, changes, named):
    path = tmp_path / "checkpoint.safetensors"
    done = train(checkpoint=path, learned_from=DATA)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"checkpoint.safetensors .*other data \({named} differ\); delete it"):
        train(checkpoint=path, learned_from=DATA | changes)
    assert path.read_bytes() == before
    assert train(checkpoint=path, learned_from=DATA).history == done.history


def test_the_checkpoint_of_another_kind_of_training_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match=r"another kind of training \(toy, not fused training\); put the right file"):
        loop.train(epoch, train_state(), 3, name="fused training", settings=SETTINGS, checkpoint=path)


def test_a_checkpoint_that_does_not_say_what_it_learned_from_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(epochs=1, checkpoint=path)
    tree, metadata = storage.read_tree(path, {"train_state": train_state(), "best": train_state().params})
    del metadata["learned_from"]
    storage.write_tree(path, tree, metadata)
    with pytest.raises(
        storage.DamagedFileError, match="does not say what it was trained from.*delete it to start again"
    ):
        train(checkpoint=path)


def test_a_second_training_on_one_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"

    def meanwhile(state, n):
        with pytest.raises(storage.InUseError, match="is being written by another process"):
            train(checkpoint=path)
        return epoch(state, n)

    assert train(meanwhile, checkpoint=path).history == train().history
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_checkpoint_is_refused_with_a_remedy_and_left_alone(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(epochs=1, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-8])
    before = path.read_bytes()
    with pytest.raises(storage.DamagedFileError, match="checkpoint.safetensors is damaged .*restore it or train"):
        train(checkpoint=path)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(epochs=1, checkpoint=path)
    other = train_state()._replace(params={"x": jnp.zeros(5)})
    with pytest.raises(storage.DamagedFileError, match="another architecture or settings; delete it"):
        loop.train(epoch, other, 3, name="toy", settings=SETTINGS, checkpoint=path)


@pytest.mark.parametrize("lost", ["loss", "parameters"])
def test_what_is_not_finite_is_reported_and_never_saved(tmp_path, lost):
    path = tmp_path / "checkpoint.safetensors"

    def diverging(state, n):
        state, record = epoch(state, n)
        if n < 2:
            return state, record
        return (
            (state, {"loss": np.nan}) if lost == "loss" else (state._replace(params={"x": jnp.full(2, np.inf)}), record)
        )

    with pytest.raises(
        loop.DivergedError, match=rf"toy, epoch 2: {lost} .*keeps the epoch before; lower the learning rate"
    ):
        train(diverging, checkpoint=path)
    assert len(storage.read_metadata(path)["history"]) == 2
    with pytest.raises(loop.DivergedError, match="keeps the epoch before"):
        train(diverging, checkpoint=str(path))
    assert train(checkpoint=path).history == train().history


# --- progress ---------------------------------------------------------------------------------------------------


def test_recorded_output_gets_few_plain_lines(capsys):
    with progress.bar("training", 50) as report:
        for n in range(50):
            report({"loss": 1 / (n + 1)})
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["training: 0/50", "training: 50/50, 0 s left, loss 0.02"]  # one each fifteen seconds in between


def test_a_resumed_bar_counts_from_where_it_stood(capsys):
    with progress.bar("training", 10, start=6) as report:
        report(advance=4)
    assert "training: 10/10" in capsys.readouterr().out


def test_work_without_a_name_is_silent(capsys):
    with progress.bar(None, 3) as report:
        report({"loss": 1.0})
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
