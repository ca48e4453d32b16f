"""DimeNet++ as matrix products against DimeNet++ with an explicit sum over triplets, and its symmetries."""

from dataclasses import replace

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import laid_out
from ase.build import bulk
from ase.neighborlist import neighbor_list
from scipy.optimize import brentq
from scipy.special import eval_legendre, spherical_jn

from fusedff.network import angular, radial_basis
from fusedff.network.dimenet import DimeNet
from fusedff.potential import Potential

SMALL = DimeNet(
    cutoff=3.6, embedding=8, blocks=2, radial=4, spherical=4, interaction=4, basis=4, type_embedding=4, output=8,
    output_layers=1, layers_before_skip=1, layers_after_skip=1,
)  # fmt: skip


# --- the network as published, one triplet after the other; nothing below uses fusedff but its parameters ----


def zeros_of_spherical_bessel(l, count):
    """First positive zeros of j_l, by looking for changes of sign."""
    grid = np.linspace(0.5, 60, 12000)
    values = spherical_jn(l, grid)
    crossings = np.flatnonzero(values[:-1] * values[1:] < 0)[:count]
    return [brentq(lambda r: spherical_jn(l, r), grid[k], grid[k + 1], xtol=1e-15) for k in crossings]


class PublishedDimeNet:
    """Gasteiger et al. 2020, equations as printed: energies from positions, with loops over k -> j -> i."""

    def __init__(self, config, params):
        self.c = config
        self.p = jax.tree.map(lambda x: np.asarray(x, float), params)
        self.zeros = [zeros_of_spherical_bessel(l, config.radial) for l in range(config.spherical)]

    def dense(self, x, name):
        layer = self.p[name]
        return x @ layer["w"] + layer.get("b", 0)

    def active(self, x, name):
        y = self.dense(x, name)
        return y / (1 + np.exp(-y))

    def envelope(self, x):
        p = self.c.envelope
        return 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)

    def radial_basis(self, d):
        x = d / self.c.cutoff
        return self.envelope(x) * np.sqrt(2) * np.sin(self.p["~"]["frequencies"] * x) / x

    def spherical_basis(self, d, cosine):
        """a_ln(d, angle), l major: sqrt(2 / j_{l+1}(z)^2) j_l(z x) Y_l0(angle), times the envelope."""
        x = d / self.c.cutoff
        basis = []
        for l, zeros in enumerate(self.zeros):
            harmonic = np.sqrt((2 * l + 1) / (4 * np.pi)) * eval_legendre(l, cosine)
            for z in zeros:
                norm = np.sqrt(2 / spherical_jn(l + 1, z) ** 2)
                basis.append(norm * spherical_jn(l, z * x) * harmonic * self.envelope(x))
        return np.array(basis)

    def residual(self, m, name):
        return m + self.active(self.active(m, f"{name}_a"), f"{name}_b")

    def output(self, messages, edges, n, name):
        atom = np.zeros((n, self.c.embedding))
        for m, (i, _, vector) in zip(messages, edges, strict=True):
            atom[i] += m * self.dense(self.radial_basis(np.linalg.norm(vector)), f"{name}_radial")
        atom = self.dense(atom, f"{name}_up")
        for layer in range(self.c.output_layers):
            atom = self.active(atom, f"{name}_{layer}")
        return self.dense(atom, f"{name}_final")[:, 0]

    def interact(self, messages, edges, reversed_edge, name):
        c, free = self.c, self.p["~"]
        radial_weight = free[f"{name}_radial_down"] @ free[f"{name}_radial_up"]
        spherical_weight = free[f"{name}_spherical_down"] @ free[f"{name}_spherical_up"]
        both = np.array([self.active(m, f"{name}_kj_ji") for m in messages])
        radial = np.array([self.radial_basis(np.linalg.norm(vector)) for *_, vector in edges])
        incoming = self.active(both[:, : c.embedding] * (radial @ radial_weight), f"{name}_down")
        new = []
        for ji, (_, j, from_i_to_j) in enumerate(edges):
            total = np.zeros(c.interaction)
            for kj, (receiver, _, from_j_to_k) in enumerate(edges):
                if receiver != j or kj == reversed_edge[ji]:  # k is i, in the very same periodic image
                    continue
                d = np.linalg.norm(from_j_to_k)
                cosine = from_j_to_k @ -from_i_to_j / d / np.linalg.norm(from_i_to_j)
                total += incoming[kj] * (self.spherical_basis(d, cosine) @ spherical_weight)
            update = both[ji, c.embedding :] + self.active(total, f"{name}_up")
            for layer in range(c.layers_before_skip):
                update = self.residual(update, f"{name}_before_{layer}")
            update = messages[ji] + self.active(update, f"{name}_skip")
            for layer in range(c.layers_after_skip):
                update = self.residual(update, f"{name}_after_{layer}")
            new.append(update)
        return np.array(new)

    def energies(self, frame, species):
        i, j, vector = neighbor_list("ijD", frame, float(self.c.cutoff))
        edges = list(zip(i, j, vector, strict=True))
        reversed_edge = []
        for receiver, sender, v in edges:
            gap = np.linalg.norm(vector + v, axis=1) + 9.0 * ((i != sender) | (j != receiver))
            reversed_edge.append(int(np.argmin(gap)))
        kind = self.p["~"]["species"]
        messages = []
        for receiver, sender, v in edges:
            distance = self.dense(self.radial_basis(np.linalg.norm(v)), "embedding_distance")
            mixed = (
                self.dense(kind[species[receiver]], "embedding_receiver")
                + self.dense(kind[species[sender]], "embedding_sender")
                + self.dense(distance, "embedding_mix")
            )
            messages.append(mixed / (1 + np.exp(-mixed)))
        energy = self.output(messages, edges, len(frame), "output")
        for block in range(self.c.blocks):
            messages = self.interact(messages, edges, reversed_edge, f"interaction_{block}")
            energy = energy + self.output(messages, edges, len(frame), f"output_{block}")
        return energy


# --- fixtures --------------------------------------------------------------------------------------------------


def with_weights(params, seed=0, dtype=jnp.float64):
    """Random numbers in every parameter: the last layer starts at zero, which would make any test pass."""
    rng = np.random.default_rng(seed)

    def draw(path, x):
        if "frequencies" in jax.tree_util.keystr(path):
            return jnp.asarray(np.pi * np.arange(1, x.size + 1) + rng.normal(size=x.size) / 10, dtype)
        return jnp.asarray(rng.normal(size=x.shape) / np.sqrt(max(x.shape[0], 1)), dtype)

    return jax.tree_util.tree_map_with_path(draw, params)


def skewed_alloy():
    """Three atoms of two species in a skewed cell with heights of about one cut-off: many images."""
    cell = np.array([[4.1, 0.2, 0.0], [-1.8, 3.7, 0.1], [0.9, -0.6, 4.3]])
    scaled = [[0.02, 0.05, -0.03], [0.45, 0.62, 0.4], [0.8, 0.1, 0.75]]
    return ase.Atoms("TiAlTi", scaled_positions=scaled, cell=cell, pbc=True)


@pytest.fixture(scope="module")
def alloy_potential():
    model = Potential.create(jax.random.key(0), SMALL, {"Al": 0.0, "Ti": 0.0})
    return replace(model.with_params(with_weights(model.params)), repulsion=False)  # the published network alone


evaluate = jax.jit(Potential.evaluate)


@jax.jit
def per_atom(model, system, near):
    from fusedff.geometry.neighbors import displacements

    return model.atomic_energies(displacements(system, near), near, system.numbers)


def assert_same(model, frame, other, order=None, rtol=1e-10):
    """Equal energies per atom of two structures; `order` maps the atoms of the second to the first."""
    first, second = (per_atom(model, *laid_out(f, model.cutoff)) for f in (frame, other))
    np.testing.assert_allclose(second, np.asarray(first)[slice(None) if order is None else order], rtol=rtol)


# --- the same numbers ------------------------------------------------------------------------------------------


def test_energies_without_triplets_are_those_of_every_triplet_written_out(alloy_potential):
    frame = skewed_alloy()
    published = PublishedDimeNet(SMALL, alloy_potential.params).energies(frame, [1, 0, 1])
    assert np.ptp(published) > 0.01  # the test would mean nothing if the atoms were alike
    # radial functions come from a table that is exact to 1e-13 of their largest value
    np.testing.assert_allclose(
        per_atom(alloy_potential, *laid_out(frame, SMALL.cutoff)), published, rtol=1e-10, atol=1e-11
    )


def test_forces_are_the_derivatives_of_the_published_energy(alloy_potential):
    frame, h = skewed_alloy(), 1e-4
    published = PublishedDimeNet(SMALL, alloy_potential.params)
    forces = np.asarray(evaluate(alloy_potential, *laid_out(frame, SMALL.cutoff)).forces)
    for atom, axis in [(0, 0), (1, 1), (2, 2)]:
        ends = []
        for sign in (1, -1):
            moved = frame.copy()
            moved.positions[atom, axis] += sign * h
            ends.append(published.energies(moved, [1, 0, 1]).sum())
        # central differences: h^2 f''' / 6 with f''' of a few hundred eV/Å^4
        assert forces[atom, axis] == pytest.approx(-(ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-6)


def test_single_precision_keeps_the_energies_to_one_part_in_100_000(alloy_potential):
    exact = evaluate(alloy_potential, *laid_out(skewed_alloy(), SMALL.cutoff))
    system, near = laid_out(skewed_alloy(), SMALL.cutoff)
    single = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, system)
    rounded = alloy_potential.with_params(jax.tree.map(lambda x: x.astype(jnp.float32), alloy_potential.params))
    found = evaluate(rounded, single, near)
    assert found.energy.dtype == jnp.float32
    np.testing.assert_allclose(found.energy, exact.energy, rtol=1e-5)
    np.testing.assert_allclose(found.forces, exact.forces, atol=1e-5 * np.abs(exact.forces).max())


def test_spherical_harmonics_obey_the_addition_theorem(rng):
    unit = rng.normal(size=(2, 50, 3))
    unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
    first, second = (np.asarray(angular.spherical_harmonics(jnp.asarray(u), 7)) for u in unit)
    cosine = (unit[0] * unit[1]).sum(-1)
    start = 0
    for l in range(7):
        part = slice(start, start + 2 * l + 1)
        np.testing.assert_allclose((first[:, part] * second[:, part]).sum(-1), eval_legendre(l, cosine), atol=1e-13)
        start = part.stop


def test_both_forms_of_the_angular_part_are_the_same_sum(rng, monkeypatch):
    unit = rng.normal(size=(4, 9, 3))
    unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
    waves = rng.normal(size=(4, 9, 6, 5))

    def both():
        return np.asarray(angular.aggregate_triplets(angular.angles(jnp.asarray(unit), 6), jnp.asarray(waves)))

    pairs = both()
    monkeypatch.setattr(angular, "MAX_SLOTS_FOR_PAIRS", 8)
    np.testing.assert_allclose(both(), pairs, atol=1e-12)
    cosine = np.einsum("aix,akx->aik", unit, unit)
    apart = 1 - np.eye(9)
    exact = sum(np.einsum("aik,akc->aic", apart * eval_legendre(l, cosine), waves[:, :, l]) for l in range(6))
    np.testing.assert_allclose(pairs, exact, atol=1e-12)


def test_spherical_bessel_roots_are_zeros_in_order():
    roots = radial_basis.spherical_bessel_roots(6, 7)
    np.testing.assert_allclose(roots, [zeros_of_spherical_bessel(l, 6) for l in range(7)], rtol=1e-13)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-12)])
def test_the_radial_table_holds_the_spherical_bessel_functions_to_rounding(dtype, tolerance):
    x = np.random.default_rng(0).uniform(radial_basis.SHORTEST, 1, 300)
    polynomials, table = radial_basis.radial_table(6, 7, dtype)
    found = np.asarray(radial_basis.chebyshev(jnp.asarray(x), len(polynomials))) @ polynomials @ table
    exact = np.stack(
        [
            np.sqrt(2) / abs(spherical_jn(l + 1, z)) * np.sqrt((2 * l + 1) / (4 * np.pi)) * spherical_jn(l, z * x)
            for l in range(7)
            for z in zeros_of_spherical_bessel(l, 6)
        ],
        axis=-1,
    )
    assert np.abs(found - exact).max() < tolerance * np.abs(exact).max()
    np.testing.assert_allclose(radial_basis.spherical_bessel_basis(x, 6, 7), exact, atol=1e-12)


# --- symmetries ------------------------------------------------------------------------------------------------


def test_energies_do_not_change_when_the_crystal_is_moved_turned_or_mirrored(alloy_potential, rng):
    frame = skewed_alloy()
    moved = frame.copy()
    moved.positions += [1.3, -20.0, 0.4]
    assert_same(alloy_potential, frame, moved)
    for handedness in (1, -1):
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        q *= handedness * np.linalg.det(q)
        turned = frame.copy()
        turned.set_cell(frame.cell.array @ q.T)
        turned.positions = frame.positions @ q.T
        assert_same(alloy_potential, frame, turned)
        forces = [evaluate(alloy_potential, *laid_out(f, SMALL.cutoff)).forces for f in (frame, turned)]
        np.testing.assert_allclose(forces[1], forces[0] @ q.T, rtol=1e-9, atol=1e-10)


def test_energies_do_not_depend_on_the_order_of_atoms_nor_on_the_choice_of_cell(alloy_potential):
    frame = skewed_alloy()
    order = [2, 0, 1]
    assert_same(alloy_potential, frame, frame[order], order)
    other_cell = frame.copy()
    other_cell.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]]) @ frame.cell.array)
    assert_same(alloy_potential, frame, other_cell)
    assert_same(alloy_potential, frame, frame * (2, 1, 1), [0, 1, 2, 0, 1, 2])


def test_swapping_the_species_changes_the_energy(alloy_potential):
    frame = skewed_alloy()
    swapped = frame.copy()
    swapped.symbols = "AlTiAl"
    first, second = (evaluate(alloy_potential, *laid_out(f, SMALL.cutoff)).energy for f in (frame, swapped))
    assert abs(float(first[0] - second[0])) > 1e-3


def test_energy_force_and_curvature_are_smooth_as_a_neighbour_leaves_the_cutoff(alloy_potential):
    """A trimer whose third atom crosses the cut-off of the first, in sight of the second."""
    from fusedff.geometry.neighbors import Neighbors
    from fusedff.geometry.systems import System

    # all pairs listed at any distance: only the network itself decides what lies outside
    source = jnp.array([[1, 2], [0, 2], [0, 1]], jnp.int32)
    reverse = jnp.array([[2, 4], [0, 5], [1, 3]], jnp.int32)
    near = Neighbors(source, jnp.zeros((3, 2, 3), jnp.int32), reverse, jnp.ones((3, 2), bool), jnp.int32(2))

    def derivatives(x):
        def energy(x):
            third = jnp.array([1.5, 0.0, 0.0]) + x * jnp.array([1.0, 0.0, 0.0])
            positions = jnp.stack([jnp.zeros(3), jnp.array([2.0, 0.5, 0.0]), third])
            system = System(positions, 50 * jnp.eye(3)[None], jnp.zeros(3, jnp.int32), jnp.array([22, 13, 22]))
            return alloy_potential.energies(system, near)[0]

        slope = lambda x: jax.jvp(energy, (x,), (jnp.ones(()),))[1]  # noqa: E731
        return energy(x), slope(x), jax.grad(slope)(x)

    crossing, step = SMALL.cutoff - 1.5, 1e-5  # where the third atom leaves the first
    near_by = jnp.array([-step, 0.0, step])
    x = jnp.concatenate([near_by, jnp.linspace(-0.3, 0.3, 121)]) + crossing
    curve = np.array(jax.jit(lambda x: jax.lax.map(derivatives, x))(x))
    below, at, above = curve[:, :3].T
    # energies of 4 eV bend over tenths of Å here: third derivatives of about 1000 eV/Å^4
    assert abs(above[0] - below[0] - 2 * step * at[1]) < 1e-9  # energy: no step
    assert abs(above[1] - below[1] - 2 * step * at[2]) < 1e-6  # force: no step
    assert abs(above[2] - below[2]) < 5000 * step  # curvature: no step either
    curvature = curve[2, 3:]
    assert np.isfinite(curvature).all()
    # no jump: neighbouring curvatures 0.005 Å apart differ by no more than a smooth function's would
    assert np.abs(np.diff(curvature)).max() < 0.1 * np.ptp(curvature) + 1e-6


def test_an_isolated_atom_has_a_finite_constant_energy_and_no_force(alloy_potential):
    alone = ase.Atoms("Ti", cell=30 * np.eye(3), pbc=True)
    elsewhere = ase.Atoms("Ti", positions=[[3.0, 2.0, 1.0]], cell=40 * np.eye(3), pbc=True)
    first, second = (evaluate(alloy_potential, *laid_out(f, SMALL.cutoff)) for f in (alone, elsewhere))
    assert np.isfinite(first.energy).all()
    assert float(first.energy[0]) == float(second.energy[0])
    assert not np.any(first.forces)
    assert not np.any(first.stress)


def test_empty_slots_change_nothing(alloy_potential):
    from fusedff.geometry import neighbors

    frame = skewed_alloy()
    system, near = laid_out(frame, SMALL.cutoff)
    roomy = neighbors.from_frames(frame, SMALL.cutoff, near.capacity + 7)
    for tight, loose in zip(
        evaluate(alloy_potential, system, near), evaluate(alloy_potential, system, roomy), strict=True
    ):
        np.testing.assert_allclose(loose, tight, rtol=1e-12, atol=1e-13)


def test_an_untrained_network_adds_nothing_to_the_reference_energies():
    model = Potential.create(jax.random.key(1), SMALL, {"Ti": -6.5})
    frame = bulk("Ti", "hcp", a=2.95, c=4.68)
    binding = evaluate(model, *laid_out(frame, SMALL.cutoff)).energy
    assert float(binding[0]) == 0.0
    assert model.total(binding, [frame])[0] == -13.0
