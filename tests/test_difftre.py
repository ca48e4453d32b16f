"""DiffTRe: its gradient, and the training of a Lennard-Jones crystal whose true parameters are known."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import resuming
from argon import argon

from fusedff.crystallography.crystals import Crystal
from fusedff.measurements.state_points import StatePoint
from fusedff.simulation import langevin, reweighting
from fusedff.simulation.elasticity import CoupledStrains, StressFluctuation
from fusedff.simulation.langevin import LangevinConfig
from fusedff.training import difftre, targets
from fusedff.training.config import DiffTReConfig, SamplingConfig
from fusedff.training.difftre import DiffTReTrainer
from fusedff.training.optimizers import Adam, GaussNewton
from fusedff.units import GPA


@dataclass(frozen=True)
class Coupled(CoupledStrains):
    """In double precision, for derivatives."""

    def cells(self, points, repeats, replicas=1):
        return CoupledStrains.cells(self, points, repeats, replicas, jnp.float64)


@dataclass(frozen=True)
class Fluctuation(StressFluctuation):
    """In double precision, for derivatives."""

    def cells(self, points, repeats, replicas=1):
        return StressFluctuation.cells(self, points, repeats, replicas, jnp.float64)


CRYSTAL = Crystal("Ar", "fcc", 5.2)
LANGEVIN = LangevinConfig(timestep_fs=8.0, friction_per_ps=10.0, steps_per_snapshot=10, skin=0.6)
SETTINGS = DiffTReConfig(
    updates=10, optimizer=Adam(2.5e-4, 5e-5), estimator=Coupled(), repeats=(1, 1, 1),
    sampling=SamplingConfig(LANGEVIN, first_equilibration=10, equilibration=10, snapshots=10, reuse_above=0.9),
)  # fmt: skip
START = argon(epsilon=0.0095)


def points(**elastic_gpa):
    """Two temperatures with the same constants."""
    elastic = {name: value * GPA for name, value in elastic_gpa.items()}
    return [StatePoint(t, CRYSTAL, elastic, pressure=0.1 * GPA) for t in (10.0, 20.0)]


def first_snapshots(term, potential):
    """What a term finds before the first update."""
    return term.find(potential, term.init(potential.params, jax.random.PRNGKey(0)), 0)[1]


def reweighted(term, sampled, function, factor=1.0):
    """A function of averages at any parameters, from the snapshots of `sampled` alone; `factor` times 1 / kT."""

    def of_params(params):
        energy, observed = term.reevaluate(START.with_params(params), sampled)
        w = reweighting.weights(factor * term.beta, energy, sampled.trajectory.energy)
        return function(reweighting.averages(w, observed))

    return of_params


@pytest.mark.parametrize("estimator", [Coupled(), Fluctuation()], ids=["coupled", "fluctuation"])
def test_the_gradient_is_that_of_the_loss_reweighted_on_the_same_trajectory(estimator):
    (term,) = difftre.terms_of(points(C11=4.0, C12=2.0, C44=2.0), replace(SETTINGS, estimator=estimator), START)
    averages = first_snapshots(term, START)
    assert float(averages.n_eff) == pytest.approx(1, rel=1e-12)
    _, found = term.gradient(START, averages)
    loss = reweighted(term, averages.sampled, partial(targets.loss, term.target))
    for name, h in [("epsilon", 1e-7), ("sigma", 1e-5)]:
        up, down = (loss({**START.params, name: START.params[name] + s * h}) for s in (1, -1))
        # an identity, whatever the trajectory: h^2 and rounding are all that separates the two
        assert float(found[name][0]) == pytest.approx(float(up - down) / (2 * h), rel=1e-5)


@pytest.fixture(scope="module")
def true_points():
    """State points with what argon itself gives, by the estimator that will learn from them."""
    truth = argon()
    (term,) = difftre.terms_of(points(C11=1.0), SETTINGS, truth)
    constants, stress = term.target.properties(first_snapshots(term, truth).means)
    return [
        StatePoint(
            p.temperature, CRYSTAL, dict(zip(("C11", "C12", "C44"), c * GPA, strict=True)), pressure=-float(q[0]) * GPA
        )
        for p, c, q in zip(term.target.points, np.asarray(constants), stress, strict=True)
    ]


def test_a_wrong_epsilon_is_corrected_by_elastic_constants_and_stress(true_points):
    """Adam moves both parameters by the same amount: percents of epsilon, next to nothing of sigma."""
    trained, history = difftre.train(START, true_points, SETTINGS)
    assert len(history) == SETTINGS.updates
    assert min(record["loss"] for record in history) < 0.05 * history[0]["loss"]
    # started 9 % off; constants of short trajectories are noisy by a percent
    assert float(trained.params["epsilon"][0]) == pytest.approx(0.0104, rel=0.02)
    first = history[0]
    assert first["C11@10K"] < 0.95 * true_points[0].elastic_gpa["C11"]  # too soft by those 9 %
    assert {"C11@20K", "C12@20K", "C44@20K", "σxx@20K", "n_eff", "loss"} <= set(first)


NEWTON = replace(SETTINGS, updates=5, optimizer=GaussNewton(relaxation=0.6, final_relaxation=0.2))


@pytest.mark.parametrize("every", [1, 3])
def test_the_jacobian_is_that_of_the_residuals_reweighted_on_the_snapshots_it_is_taken_from(every):
    """With Bessel's correction: their covariance is about their own mean."""
    (term,) = difftre.terms_of(points(C11=4.0, C12=2.0, C44=2.0), NEWTON, START)
    averages = first_snapshots(term, START)
    _, found = term.jacobian(START, averages, every)
    some = averages.every(every).sampled
    n = len(some.trajectory.energy)
    residuals = reweighted(term, some, lambda means: np.ravel(term.target.residuals(means)), n / (n - 1))
    for column, (name, h) in enumerate([("epsilon", 1e-7), ("sigma", 1e-5)]):  # in the order of the tree's leaves
        up, down = (residuals({**START.params, name: START.params[name] + s * h}) for s in (1, -1))
        expected = (up - down) / (2 * h)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("every", [1, 3])
def test_gauss_newton_corrects_epsilon_in_five_updates(every, true_points):
    settings = replace(NEWTON, optimizer=replace(NEWTON.optimizer, jacobian_every=every))
    describe = lambda potential: {"epsilon": float(potential.params["epsilon"][0])}  # noqa: E731
    trained, history = difftre.train(START, true_points, settings, describe=describe)
    assert describe(trained)["epsilon"] == pytest.approx(0.0104, rel=0.02)
    assert history[-1]["loss"] < 0.05 * history[0]["loss"]
    assert history[0]["epsilon"] == describe(START)["epsilon"]  # before the first update, like the loss
    assert abs(history[-1]["epsilon"] - 0.0104) < abs(history[0]["epsilon"] - 0.0104)


def with_reuse_above(settings, share):
    return replace(settings, sampling=replace(settings.sampling, reuse_above=share))


@pytest.mark.parametrize("optimizer", [Adam(1e-5, 1e-5), GaussNewton(1e-5, 1e-5)])
def test_an_interrupted_training_ends_bit_for_bit_where_it_would_have(optimizer, true_points, tmp_path, monkeypatch):
    # reuse is on: the snapshots kept from one update to the next must survive, too
    settings = replace(with_reuse_above(SETTINGS, 0.5), updates=4, optimizer=optimizer)
    _, history = resuming.check(
        lambda *checkpoint: difftre.train(START, true_points, settings, *checkpoint),
        DiffTReTrainer, "update", 2, tmp_path / "checkpoint.safetensors", monkeypatch,
    )  # fmt: skip
    assert history[1]["n_eff"] < 1  # really reused
    assert [record["simulations"] for record in history[:2]] == [1, 0]


def test_constants_that_were_not_measured_do_not_count():
    target = difftre.elastic_target(points(C11=4.0, C44=2.0), SETTINGS)
    means = 1e-3 * jax.random.normal(jax.random.key(0), (target.cells.n_cells, 6))
    constants, stress = (np.asarray(x) for x in target.properties(means))
    deviation = constants[:, [0, 2]] - [4.0, 2.0]
    expected = np.mean(deviation**2) + SETTINGS.stress_weight * np.mean((stress + 0.1) ** 2)
    value, gradient = jax.value_and_grad(partial(targets.loss, target))(means)
    assert float(value) == pytest.approx(expected, rel=1e-10)
    assert np.isfinite(gradient).all()


def test_with_nothing_but_pressures_the_loss_is_that_of_the_pressures():
    target = difftre.elastic_target(points(), SETTINGS)
    means = 1e-3 * jax.random.normal(jax.random.key(1), (target.cells.n_cells, 6))
    _, stress = target.properties(means)
    expected = SETTINGS.stress_weight * np.mean((np.asarray(stress) + 0.1) ** 2)
    assert float(targets.loss(target, means)) == pytest.approx(expected, rel=1e-10)


class Fragile:
    """Simulations that explode as soon as epsilon is above a limit."""

    def __init__(self, monkeypatch, limit):
        run = langevin.Simulation.run

        def explodes(simulation, sampled, *arguments, **options):
            if float(sampled.params["epsilon"][0]) > limit:
                raise langevin.ExplodedTrajectoryError("cell 0 at 10 K exploded", 0)
            return run(simulation, sampled, *arguments, **options)

        monkeypatch.setattr(langevin.Simulation, "run", explodes)


@pytest.mark.filterwarnings("ignore:update 2")
def test_a_state_point_that_is_lost_halves_the_step_and_the_rest_goes_on(true_points, monkeypatch):
    settings = replace(with_reuse_above(SETTINGS, 1.0), updates=3, optimizer=Adam(4e-4, 1e-5))
    epsilon = float(START.params["epsilon"][0])  # the first step is about one learning rate long, upwards
    Fragile(monkeypatch, limit=epsilon + 2.5e-4)
    with pytest.warns(UserWarning, match=r"update 1: cell 0 at 10 K exploded.*half of the step back"):
        trained, history = difftre.train(START, true_points, settings)
    assert [record["halvings"] for record in history][:2] == [0, 1]
    assert all(np.isfinite(record["loss"]) for record in history)
    assert float(trained.params["epsilon"][0]) > epsilon


@pytest.mark.filterwarnings("ignore:update")
@pytest.mark.parametrize("limit", [-1e-3, 1e-9], ids=["from the start", "at the first step"])
def test_a_state_point_that_cannot_be_kept_is_an_error(true_points, monkeypatch, limit):
    Fragile(monkeypatch, limit=float(START.params["epsilon"][0]) + limit)
    settings = replace(with_reuse_above(SETTINGS, 1.0), updates=2)
    with pytest.raises(langevin.ExplodedTrajectoryError):
        difftre.train(START, true_points, settings)


def test_a_training_that_ends_with_a_molten_crystal_says_so(true_points):
    difftre_trainer = difftre.DiffTReTrainer(SETTINGS, START, true_points)
    train_state, sites = difftre_trainer.init(START.params), difftre_trainer.terms[0].cells.sites
    liquid = sites + 2.0 * jax.random.normal(jax.random.key(0), (SETTINGS.sampling.snapshots, *sites.shape))
    (kept,) = train_state.extra
    ended = (kept._replace(trajectory=kept.trajectory._replace(positions=liquid)),)
    with pytest.warns(UserWarning, match=r"at \d+ K is no longer the crystal it began as"):
        difftre.warn_of_trajectories(difftre_trainer, train_state._replace(extra=ended), START)
