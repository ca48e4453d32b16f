"""Targets other than elastic constants: structure and pressure of a liquid whose parameters are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk

from fusedff.crystallography.crystals import Crystal
from fusedff.geometry import neighbors
from fusedff.measurements.state_points import StatePoint
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential
from fusedff.simulation import distributions, langevin, reweighting, snapshots
from fusedff.simulation.cells import replicate
from fusedff.simulation.elasticity import CoupledStrains
from fusedff.simulation.langevin import LangevinConfig
from fusedff.training import difftre
from fusedff.training.config import DiffTReConfig, SamplingConfig
from fusedff.training.optimizers import Adam
from fusedff.training.targets import ElasticTarget, HeatCapacityTarget, PressureTarget, RadialTarget, loss
from fusedff.training.terms import Averages
from fusedff.units import GPA

OPTIMIZED = True  # long dynamics, see conftest.py

# 32 atoms at 60 % of the density of the crystal: they melt by themselves
LIQUID = bulk("Ar", "fcc", a=6.2, cubic=True) * (2, 2, 2)
LIQUID.rattle(0.4, seed=0)  # neighbour lists have the size of a liquid's from the start: less to compile again
TEMPERATURE = 120.0  # K
R = 0.2 * np.arange(1, 30)  # Å
SETTINGS = DiffTReConfig(
    updates=14, optimizer=Adam(0.012, 0.002), seed=3,
    sampling=SamplingConfig(LangevinConfig(10.0, 2.0, 20, 0.6), 20, equilibration=5, snapshots=12, reuse_above=0.6),
)  # fmt: skip


def liquid(epsilon, sigma) -> Potential:
    """Short-ranged Lennard-Jones; epsilon in units of 0.104 eV, so that one learning rate suits both parameters."""
    params = {"epsilon": jnp.array([epsilon]), "sigma": jnp.array([sigma])}
    return Potential(params, LennardJones(5.1), (18,), (0.0,), 0.104)


TRUTH, WRONG = liquid(0.1, 3.4), liquid(0.085, 3.46)


def cells(replicas):
    return replicate([LIQUID], [TEMPERATURE], replicas, jnp.float64)


def observed(target, seed):
    """What the true liquid shows, with random numbers that no training sees: (n_snapshots, n_cells, n_quantities)."""
    simulation = langevin.Simulation(target.cells, SETTINGS.sampling.langevin, TRUTH.cutoff, target.observe)
    state = langevin.start(target.cells, jax.random.PRNGKey(seed))
    state, _ = simulation.run(TRUTH, state, 25)
    return simulation.run(TRUTH, state, 40)[1].observed


def test_a_lennard_jones_liquid_is_recovered_from_its_radial_distribution():
    none = RadialTarget(cells(16), R, np.zeros((1, len(R))))
    curve = observed(none, seed=11).mean((0, 1))
    trained, history = difftre.train(WRONG, RadialTarget(cells(16), R, curve[None]), SETTINGS)
    assert history[-1]["loss"] < 0.1 * history[0]["loss"]
    assert history[-1]["g_rms@120K"] < 0.03
    # One standard error, from the scatter of the cells and the derivatives of g, is 8 % of the well depth (structure
    # hardly shows it) and 0.5 % of the diameter; they start 15 % and 2 % off
    assert float(trained.params["epsilon"][0]) == pytest.approx(0.1, rel=0.1)
    assert float(trained.params["sigma"][0]) == pytest.approx(3.4, rel=0.008)


def test_a_cold_crystal_has_the_heat_capacity_of_dulong_and_petit():
    """kT/2 for every vibration and every momentum, whatever the number of atoms: the centre of mass rests."""
    crystal = bulk("Ar", "fcc", a=5.25, cubic=True)
    target = HeatCapacityTarget(replicate([crystal], [2.0], 64, jnp.float64), [3.0])
    simulation = langevin.Simulation(target.cells, LangevinConfig(10.0, 5.0, 40, 0.4), TRUTH.cutoff, target.observe)
    state = langevin.start(target.cells, jax.random.PRNGKey(2))
    state, _ = simulation.run(TRUTH, state, 20)
    found = float(target.heat_capacity(simulation.run(TRUTH, state, 60)[1].observed.mean(0))[0])
    # from 64 x 60 snapshots, some of them correlated: 3 % of the fluctuation, and 1 % of anharmonicity. Of 4 atoms in
    # place of 3 the fluctuation would be 1.5 * 3 / 4
    assert found == pytest.approx(3.0, abs=0.15)
    assert target.report(jnp.zeros((64, 2))) == {"Cv@2K": 1.5}


def test_heat_capacities_do_not_depend_on_the_zero_of_energy_and_rounding_that_would_decide_them_is_refused():
    crystal = bulk("Ar", "fcc", a=5.3, cubic=True) * (3, 3, 3)
    target = HeatCapacityTarget(replicate([crystal], [5.0], 1, jnp.float32), [3.0])
    positions = target.cells.sites + 0.025 * jax.random.normal(jax.random.PRNGKey(0), (6, *target.cells.sites.shape))

    def means(target, potential):
        images = neighbors.image_offsets(target.cells.lattice, potential.cutoff)
        found = snapshots.evaluate(target.observe, potential.cutoff, images, 60, potential, target.cells, positions)
        return found[1].mean(0)

    exact = HeatCapacityTarget(replicate([crystal], [5.0], 1, jnp.float64), [3.0])
    positions = positions.astype(jnp.float64)
    known = exact.heat_capacity(means(exact, TRUTH))
    np.testing.assert_allclose(exact.from_rest(TRUTH).heat_capacity(means(exact.from_rest(TRUTH), TRUTH)), known, 1e-9)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), TRUTH)
    positions = positions.astype(jnp.float32)
    from_rest = target.from_rest(single)
    # the energies themselves, -9 eV, are known to 1e-6 eV, of a standard deviation of 5e-3
    np.testing.assert_allclose(from_rest.heat_capacity(means(from_rest, single)), known, rtol=1e-3)
    with pytest.raises(ValueError, match="count them from the cells at rest"):
        target.report(means(target, single))


@pytest.mark.parametrize("kind", ["radial", "pressure", "heat"])
def test_gradient_and_jacobian_are_those_of_the_reweighted_residuals(kind):
    target = {
        "radial": RadialTarget(cells(2), R, np.where(R > 3.4, 1.0, 0.0)[None]),
        "pressure": PressureTarget(cells(2), [0.2 * GPA]),
        "heat": HeatCapacityTarget(replicate([LIQUID] * 2, [TEMPERATURE, 130.0], 1, jnp.float64), [2.5, 2.6]).from_rest(
            WRONG
        ),
    }[kind]
    settings = DiffTReConfig(sampling=SamplingConfig(LangevinConfig(10.0, 2.0, 10, 0.6), 2, snapshots=4))
    (term,) = difftre.terms_of(target, settings, WRONG)
    sampled, _ = term.find(WRONG, term.init(WRONG.params, jax.random.PRNGKey(0)), 0)

    def reweighted(params):
        energy, found = term.reevaluate(WRONG.with_params(params), sampled)
        w = reweighting.weights(term.beta, energy, sampled.trajectory.energy)
        return Averages(sampled, w, found, reweighting.averages(w, found))

    away = {**WRONG.params, "epsilon": 1.01 * WRONG.params["epsilon"]}  # where weights differ
    found = reweighted(away)
    assert np.ptp(np.asarray(found.weights)) > 1e-3
    energy_away, _ = term.reevaluate(WRONG.with_params(away), sampled)

    def with_bessels_correction(params):
        """Reweighted further from `found`, as if 1 / kT were larger: a covariance is about the mean of its own few."""
        energy, observed = term.reevaluate(WRONG.with_params(params), sampled)
        beta = term.beta / (1 - jnp.sum(found.weights**2, 0))
        w = jax.nn.softmax(jnp.log(found.weights) - beta * (energy - energy_away), 0)
        return reweighting.averages(w, observed)

    def slope(averages, name, h=1e-6):
        up, down = (np.ravel(target.residuals(averages({**away, name: away[name] + s * h}))) for s in (1, -1))
        return (up - down) / (2 * h)

    _, gradient = term.gradient(WRONG.with_params(away), found)
    residuals, jacobian = term.jacobian(WRONG.with_params(away), found)
    for column, name in enumerate(["epsilon", "sigma"]):
        # identities: only h^2 and rounding separate the two
        corrected = slope(with_bessels_correction, name)
        np.testing.assert_allclose(jacobian[:, column], corrected, rtol=1e-5, atol=1e-6 * np.abs(corrected).max())
        plain = slope(lambda params: reweighted(params).means, name)
        assert float(gradient[name][0]) == pytest.approx(2 * residuals @ plain, rel=1e-5)


def test_replicas_are_averaged_before_they_are_compared_and_states_are_not():
    ensemble = replicate([LIQUID, LIQUID], [100.0, 120.0], 2, jnp.float64)
    measured = np.ones((2, len(R)))
    target = RadialTarget(ensemble, R, measured, weight=2.0)
    means = jnp.ones((4, len(R))) + jnp.array([0.3, -0.3, 0.1, 0.3])[:, None]
    assert float(loss(target, means)) == pytest.approx(2 * (0 + 0.2**2) / 2)
    assert target.report(means) == pytest.approx({"g_rms@100K": 0.0, "g_rms@120K": 0.2})
    pressures = PressureTarget(ensemble, [0.0, 0.1 * GPA])
    gas = np.asarray(pressures.pressure(jnp.zeros((4, 6))))
    assert gas == pytest.approx(32 * 8.617333e-5 * np.array([100.0, 120.0]) / LIQUID.get_volume(), rel=1e-6)
    assert pressures.report(jnp.zeros((4, 6)))["P@120K"] == pytest.approx(gas[1] / GPA)


def test_states_at_one_temperature_are_told_apart_and_no_target_hides_another():
    """An isotherm: the history kept the last of its pressures."""
    crystals = [bulk("Ar", "fcc", a=a, cubic=True) for a in (5.3, 5.4)]
    isotherm = PressureTarget(replicate(crystals, [94.0, 94.0], 1, jnp.float64), np.zeros(2))
    assert list(isotherm.report(jnp.zeros((2, 6)))) == ["P@94K#0", "P@94K#1"]
    one = SamplingConfig(LangevinConfig(10.0, 2.0, 1), 0, equilibration=0, snapshots=2)
    settings = DiffTReConfig(updates=1, sampling=one)
    with pytest.raises(ValueError, match="two targets report 'P@94K#0'; give one of them a name"):
        difftre.train(TRUTH, [isotherm, isotherm], settings)
    _, (record,) = difftre.train(TRUTH, [isotherm, Phases()], settings)
    assert record["E@0.5GPa"] == 1
    assert set(difftre.shown(record)) == {"epoch", "loss", "n_eff", "P@94K#0", "P@94K#1", "E@0.5GPa"}


class Phases:
    """A static target whose name has no temperature after its @."""

    def observe(self, potential):
        return potential.params["epsilon"]

    def residuals(self, values):
        return values - 0.1

    def report(self, values):
        return {"E@0.5GPa": 1.0}


def test_deviations_count_in_units_of_their_standard_errors():
    """Of constants from a table: two measured, one with an error, at two temperatures of B2 NiAl and none of C12."""
    b2, c11, c44 = Crystal("NiAl", "cesiumchloride", 2.89), 200 * GPA, 110 * GPA
    points = [
        StatePoint(300.0, b2, {"C11": c11, "C44": c44}, elastic_stderr={"C11": 4 * GPA}),
        StatePoint(600.0, b2, {"C44": c44}, elastic_stderr={"C44": 0.5 * GPA}),
    ]
    target = ElasticTarget(points, CoupledStrains(0.01), (1, 1, 1), 1, elastic_weight=3.0, stress_weight=0.0)
    means = 0.001 * jnp.arange(24.0).reshape(4, 6)
    elastic, _ = target.properties(means)
    found = np.asarray(target.residuals(means))
    assert found.shape == (2, 3)
    expected = [[(elastic[0, 0] - 200) / 4, 0, elastic[0, 2] - 110], [0, 0, (elastic[1, 2] - 110) / 0.5]]
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-6)  # three measurements, weight 3
    assert set(target.report(means)) == {f"{name}@{t}K" for name in ("C11", "C12", "C44", "σxx") for t in (300, 600)}


def test_at_rest_is_a_crystal_whose_every_independent_stress_is_minus_the_pressure():
    """Of a hexagonal crystal two: a stress that stretches a as much as it shortens c has no pressure, and counts."""
    point = StatePoint(300.0, Crystal("Ti", "hcp", 2.95, 4.68), pressure=0.5 * GPA)
    target = ElasticTarget([point], CoupledStrains(1e-6), (1, 1, 1), 1, elastic_weight=1.0, stress_weight=8.0)
    ideal = 2 * 8.617333e-5 * 300.0 / target.cells.system(target.cells.sites).volumes[0]

    def found(xx, zz):
        """The loss of a crystal with these stresses (GPa), in all cells alike."""
        means = jnp.broadcast_to(GPA * jnp.array([xx, xx, zz, 0, 0, 0]) + ideal * jnp.array([1, 1, 1, 0, 0, 0]), (4, 6))
        return float(loss(target, means)), target.report(means)

    assert found(-0.5, -0.5)[0] == pytest.approx(0, abs=1e-6)
    value, report = found(-0.5 + 0.1, -0.5 - 0.2)
    assert value == pytest.approx(8 * (0.1**2 + 0.2**2) / 2, rel=1e-3)
    assert (report["σxx@300K"], report["σzz@300K"]) == pytest.approx((-0.4, -0.7), abs=1e-4)
    by_pressure = ElasticTarget(
        [point], CoupledStrains(1e-6), (1, 1, 1), 1, 1.0, stress_weight=0.0, pressure_weight=8.0
    )
    means = jnp.broadcast_to(
        GPA * jnp.array([-0.4, -0.4, -0.7, 0, 0, 0]) + ideal * jnp.array([1, 1, 1, 0, 0, 0]), (4, 6)
    )
    assert float(loss(by_pressure, means)) == pytest.approx(0, abs=1e-6)
    assert by_pressure.report(means)["P@300K"] == pytest.approx(0.5, abs=1e-4)


def test_adiabatic_constants_are_not_compared_with_isothermal_ones():
    b2, c11 = Crystal("NiAl", "cesiumchloride", 2.89), {"C11": 200 * GPA}
    with pytest.raises(ValueError, match=r"measured constants are adiabatic.*measurements.adiabatic"):
        ElasticTarget([StatePoint(300.0, b2, c11, condition="adiabatic")], CoupledStrains(0.01), (1, 1, 1), 1, 1.0, 1.0)


def test_curves_and_pressures_count_in_units_of_their_standard_errors():
    ensemble, measured = replicate([LIQUID], [100.0], 1, jnp.float64), np.ones((1, len(R)))
    means, stderr = measured + 0.1, np.linspace(0.1, 0.5, len(R))[None]
    weighted = loss(RadialTarget(ensemble, R, measured, stderr=stderr), means)
    assert float(weighted) == pytest.approx(np.mean((0.1 / stderr) ** 2))
    one, half = (loss(PressureTarget(ensemble, [0.0], stderr=s * GPA), jnp.zeros((1, 6))) for s in (1, 0.5))
    assert float(half) == pytest.approx(4 * float(one))
    with pytest.raises(ValueError, match=r"standard errors of g\(r\) of shape \(1, 29\); give one positive number"):
        RadialTarget(ensemble, R, measured, stderr=0 * stderr)


def test_partial_curves_count_the_neighbours_of_a_species_around_another():
    """In rocksalt: 6 unlike neighbours at a / 2, 12 like ones at a / sqrt(2); of one species around the other none."""
    a, r = 4.2, 0.1 * np.arange(1, 40)
    salt = replicate([bulk("NaCl", "rocksalt", a=a, cubic=True) * (2, 2, 2)], [100.0], 1, jnp.float64)
    counts = {}
    for name, pair in (("unlike", (11, 17)), ("like", (17, 17)), ("all", None)):
        target = RadialTarget(salt, r, np.ones((1, len(r))), pair=pair)
        g = np.asarray(target.observe(None, salt.system(salt.sites), None, None))[0]
        n = {"unlike": 32, "like": 31, "all": 63}[name]  # that may be neighbours
        counts[name] = [
            distributions.coordination(r, g, n / (2 * a) ** 3, d) for d in (a / 2 + 0.15, a / 2**0.5 + 0.15)
        ]
    np.testing.assert_allclose(counts["unlike"], [6, 6], rtol=1e-9)
    np.testing.assert_allclose(counts["like"], [0, 12], rtol=1e-9)
    np.testing.assert_allclose(counts["all"], [6, 18], rtol=1e-9)
    with pytest.raises(ValueError, match="the cells have no pair of the elements"):
        RadialTarget(salt, r, np.ones((1, len(r))), pair=(11, 19))


def test_curves_that_do_not_fit_the_cells_are_refused():
    with pytest.raises(ValueError, match="half the smallest height"):
        RadialTarget(cells(1), 0.2 * np.arange(1, 32), np.ones((1, 31)))
    with pytest.raises(ValueError, match=r"shape \(29,\) for 1 cells"):
        RadialTarget(cells(1), R, np.ones(29))
    with pytest.raises(ValueError, match="as many cells for every state"):
        PressureTarget(cells(3), [0.1, 0.2])
    hotter = replicate([LIQUID] * 4, [100.0, 100.0, 110.0, 120.0], 1, jnp.float64)  # a measurement is missing
    with pytest.raises(ValueError, match="cells of state 1 differ in temperature or lattice"):
        PressureTarget(hotter, [0.1, 0.2])
    wider = LIQUID.copy()
    wider.set_cell(1.01 * LIQUID.cell.array, scale_atoms=True)
    with pytest.raises(ValueError, match="cells of state 0 differ"):
        HeatCapacityTarget(replicate([LIQUID, wider], [100.0, 100.0], 1, jnp.float64), [3.0])
    with pytest.raises(ValueError, match="heat capacities of shape"):
        HeatCapacityTarget(cells(1), 3.0)
    with pytest.raises(ValueError, match="weight of pressures is -1; give a positive number"):
        PressureTarget(cells(1), [0.0], weight=-1.0)
    point = StatePoint(20.0, Crystal("Ar", "fcc", 5.3))
    with pytest.raises(
        ValueError, match=r"nothing of the state points counts: .*\(or no constants\), stress_weight = 0"
    ):
        difftre.terms_of([point], DiffTReConfig(stress_weight=0.0), WRONG)
    with pytest.raises(ValueError, match="not finite"):
        PressureTarget(cells(1), [np.nan])
    with pytest.raises(ValueError, match="r\\) is 2.8 below 0.5 Å, where no atoms are; give r in Å"):
        RadialTarget(cells(1), R / 10, 2.8 * np.ones((1, len(R))))
    with pytest.raises(ValueError, match=r"pressure of 2 eV/Å\^3, which no matter bears; multiply GPa by"):
        PressureTarget(cells(1), [2.0])
    with pytest.raises(ValueError, match="heat capacity of 25 k_B per atom, .* divide J"):
        HeatCapacityTarget(cells(1), [25.0])
    with pytest.raises(ValueError, match="one temperature per frame"):
        replicate([LIQUID], [100.0, 120.0])
