"""Phonons as targets: frequencies against closed forms, exact gradients, and a training that meets a target."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import argon
from ase.build import bulk

from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.interfaces.ase import FusedCalculator
from fusedff.measurements.state_points import StatePoint
from fusedff.network.dimenet import DimeNet
from fusedff.potential import Potential
from fusedff.properties.static import zone_center
from fusedff.runtime import storage
from fusedff.simulation.langevin import LangevinConfig
from fusedff.training import difftre
from fusedff.training.config import DiffTReConfig, SamplingConfig
from fusedff.training.difftre import DiffTReTrainer
from fusedff.training.optimizers import GaussNewton
from fusedff.training.phonon_target import Mode, PhononTarget
from fusedff.training.targets import ElasticTarget
from fusedff.units import GPA, THZ

HCP = Crystal("Ar", "hcp", 3.70, 6.05)
E2G, B1G = [[1, 0, 0], [-1, 0, 0]], [[0, 0, 2], [0, 0, -2]]


def target(*modes, frame=None):
    return PhononTarget(crystals.unit_cell(HCP) if frame is None else frame, modes)


def test_frequencies_of_hcp_are_those_of_finite_displacements():
    wanted = zone_center.optical(crystals.unit_cell(HCP), FusedCalculator(argon()), 1e-3)  # off by its square over Å^2
    found = target(*(Mode(f"{place}", 1.0, place) for place in range(3))).observe(argon())
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    (e2g, two), (b1g, one) = zone_center.modes(wanted)
    assert (two, one) == (2, 1)
    by_name = target(Mode("E2g", 1.0, E2G), Mode("B1g", 1.0, B1G)).observe(argon())
    np.testing.assert_allclose(by_name, [e2g, b1g], rtol=1e-4)


def test_the_optical_mode_of_diamond_is_that_of_four_springs():
    """At the minimum of Lennard-Jones a bond has the stiffness k = 72 eps / (2^(1/3) sigma^2); omega^2 = 8 k / 3 m."""
    epsilon, sigma = 0.3, 2.2
    bond = 2 ** (1 / 6) * sigma
    model = argon(epsilon, sigma, cutoff=1.3 * bond)  # second neighbours are 1.63 bonds away
    diamond = bulk("Ar", "diamond", a=4 / 3**0.5 * bond)
    (found,) = target(Mode("T2g", 1.0, 1), frame=diamond).observe(model)
    square = 8 * 72 * epsilon / (2 ** (1 / 3) * sigma**2) / (3 * diamond.get_masses()[0])
    assert float(found) == pytest.approx(square**0.5 / THZ, rel=1e-9)


def test_modes_of_a_supercell_hold_those_of_its_zone_boundary():
    """The zone centre of 1 x 1 x 2 cells is that of one cell and the point A, where acoustic modes have a frequency."""
    cell = crystals.unit_cell(HCP)
    few = target(*(Mode(f"{n}", 1.0, n) for n in range(3)), frame=cell).observe(argon())
    many = target(*(Mode(f"{n}", 1.0, n) for n in range(9)), frame=cell * (1, 1, 2)).observe(argon())
    assert all(np.abs(np.asarray(many) - float(one)).min() < 1e-8 for one in few)
    assert np.sum(np.asarray(many) < float(few[0]) - 1e-6) >= 2


@pytest.mark.parametrize("which", [1, E2G], ids=["one of two equal frequencies", "displacements"])
def test_the_gradient_is_that_of_finite_differences(which):
    phonon, model = target(Mode("E2g", 0.7, which, 0.02)), argon()

    def value(params):
        return jnp.sum(phonon.residuals(phonon.observe(model.with_params(params))) ** 2)

    found, value, h = jax.jit(jax.grad(value))(model.params), jax.jit(value), 1e-5
    for name in ("epsilon", "sigma"):
        up, down = (value({**model.params, name: model.params[name] * (1 + s * h)}) for s in (1, -1))
        # central differences are off by (h / 1)^2, sigma enters to the 12th power
        slope = float(up - down) / (2 * h * float(model.params[name][0]))
        assert float(found[name][0]) == pytest.approx(slope, rel=1e-6)


def test_a_mode_without_curvature_has_a_finite_gradient():
    """That of a new network, whose energy is constant."""
    network = DimeNet(embedding=4, blocks=1, radial=3, spherical=2, interaction=2, basis=2, type_embedding=2, output=4)
    phonon, model = target(Mode("E2g", 0.7, E2G, 0.02)), Potential.create(jax.random.key(0), network, {"Ar": 0.0})
    value, found = jax.value_and_grad(lambda p: jnp.sum(phonon.residuals(phonon.observe(model.with_params(p))) ** 2))(
        model.params
    )
    assert value == pytest.approx((0.7 / 0.02) ** 2)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


SETTINGS = DiffTReConfig(
    updates=6, optimizer=GaussNewton(1.0, 0.5, 1e-6), repeats=(2, 2, 1), stress_weight=0.0, seed=2,
    sampling=SamplingConfig(LangevinConfig(8.0, 10.0, 5, 0.6), 10, 4, snapshots=8, reuse_above=1.0),
)  # fmt: skip
START = argon(epsilon=0.0095, sigma=3.38, dtype=jnp.float32)


def test_a_training_meets_a_frequency_beside_elastic_constants():
    """Both are those of the true potential, from which the start is far; one trajectory of 8 snapshots a step."""
    truth, point = argon(dtype=jnp.float32), StatePoint(4.0, HCP, {"C33": 4 * GPA})
    e2g = float(target(Mode("E2g", 1.0, E2G)).observe(truth)[0])
    c33 = difftre.train(truth, [point], replace(SETTINGS, updates=1))[1][0]["C33@4K"]
    measured = [replace(point, elastic={"C33": c33 * GPA})]
    _, history = difftre.train(START, [*measured, target(Mode("E2g", e2g, E2G, 0.005))], SETTINGS)
    assert abs(history[0]["E2g_THz"] / e2g - 1) > 0.05
    assert abs(history[0]["C33@4K"] / c33 - 1) > 0.1
    # E2g has no noise; C33 has that of 8 correlated snapshots, and so has the C33 that is aimed at
    assert history[-1]["E2g_THz"] == pytest.approx(e2g, rel=2e-3)
    assert history[-1]["C33@4K"] == pytest.approx(c33, rel=0.03)


def test_a_phonon_adds_its_loss_and_its_gradient():
    phonon, point = target(Mode("E2g", 0.7, E2G)), StatePoint(4.0, HCP, {"C33": 4 * GPA})
    known = {
        measured: storage.digest(
            DiffTReTrainer(SETTINGS, START, [target(Mode("E2g", measured, E2G)), point]).learned_from
        )
        for measured in (0.7, 0.71)
    }
    trainer = DiffTReTrainer(SETTINGS, START, [phonon, point])
    assert known[0.7] == storage.digest(trainer.learned_from) != known[0.71]  # what a checkpoint belongs to
    elastic, static = trainer.terms  # state points come first
    assert isinstance(elastic.target, ElasticTarget)
    _, found = static.find(START, (), 0)

    def alone(params):
        return jnp.sum(phonon.residuals(phonon.observe(START.with_params(params))) ** 2)

    expected, slope = jax.value_and_grad(alone)(START.params)
    value, gradient = static.gradient(START, found)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for name in gradient:
        assert float(gradient[name][0]) == pytest.approx(float(slope[name][0]), rel=1e-4)


def test_what_is_no_mode_is_refused():
    for mode, says in (
        (Mode("E2g", 0.7, 3), "mode E2g: index 3 of 3; give 0 to 2"),
        (Mode("E2g", 0.7, [[1, 0, 0], [1, 0, 0]]), r"no vibration of 2 atoms; give \(2, 3\) that are no common shift"),
        (Mode("E2g", 0.7, [[1, 0, 0]]), r"give \(2, 3\)"),
        (Mode("E2g", -0.7, 0), "mode E2g: frequency -0.7; give a positive number in THz"),
        (Mode("E2g", 0.7, 0, 0.0), "standard error 0; give a positive"),
    ):
        with pytest.raises(ValueError, match=says):
            target(mode)
    with pytest.raises(ValueError, match="has 1 atom and so no optical modes"):
        target(Mode("none", 1.0, 0), frame=bulk("Ar", "fcc", a=5.3))
    with pytest.raises(ValueError, match="no modes; give at least one"):
        target()
    with pytest.raises(ValueError, match="weight of the phonons is 0; give a positive"):
        PhononTarget(crystals.unit_cell(HCP), [Mode("E2g", 0.7, E2G)], weight=0.0)


def test_an_element_that_the_potential_does_not_know_is_refused():
    stranger = target(Mode("E2g", 4.0, E2G), frame=bulk("Ti", "hcp", a=2.95, c=4.68))
    with pytest.raises(ValueError, match="cell of the phonons: the potential knows Ar but not Ti"):
        difftre.train(argon(), stranger, DiffTReConfig(updates=1))
    with pytest.raises(ValueError, match="knows Ar but not Ne"):
        argon().total([0.0], [bulk("Ne")])  # was the energy of argon
