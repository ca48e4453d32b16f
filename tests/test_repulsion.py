"""Short-range repulsion: the values of ZBL, a smooth switch, and no attraction at short distance."""

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import laid_out
from ase.build import bulk
from ase.data import atomic_numbers

from fusedff.geometry.neighbors import displacements
from fusedff.network import repulsion
from fusedff.network.dimenet import DimeNet
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential
from fusedff.runtime import storage

TINY = DimeNet(
    cutoff=4.2, embedding=8, blocks=1, radial=4, spherical=3, interaction=4, basis=4, type_embedding=4, output=8,
    output_layers=1, layers_before_skip=1, layers_after_skip=1,
)  # fmt: skip


def network(noise, seed=0, symbols=("Ti",)):
    """A random network; that of a new one says nothing, as its last layer is zero."""
    rng = np.random.default_rng(seed)
    made = Potential.create(jax.random.key(seed), TINY, dict.fromkeys(symbols, -5.0))
    return made.with_params(jax.tree.map(lambda x: jnp.asarray(x + noise * rng.normal(size=x.shape)), made.params))


def dimer(r, symbols="Ti2"):
    return ase.Atoms(symbols, positions=[[0, 0, 0], [r, 0, 0]], cell=20 * np.eye(3), pbc=True)


def pair_energy(z=22):
    """The switched energy of two atoms as a function of their distance."""
    system, near = laid_out(dimer(1.2), 5.0)

    def energy(r):
        vectors = jnp.array([[[r, 0, 0]], [[-r, 0, 0]]])
        return jnp.sum(repulsion.repulsion(vectors, near, jnp.full(2, z)))

    return jax.jit(energy)


def test_the_screened_coulomb_energy_is_that_of_zbl():
    """Screening function of Ziegler, Biersack and Littmark: phi(0) = 1, and its four terms at x = 1 and x = 10."""
    a = 0.46850  # Å, the screening length of two nuclei of Z^0.23 = 1/2 in the published form
    for x, phi in ((1.0, 0.416369), (10.0, 0.0087928)):
        z = 22.0
        r = x * a / (2 * z**0.23)
        expected = 14.399645 * z**2 / r * phi
        assert float(repulsion.screened_coulomb(r, z, z)) == pytest.approx(expected, rel=2e-3)
    assert sum(amplitude for amplitude, _ in repulsion._SCREENING) == pytest.approx(1.0, abs=1e-3)


def test_the_screened_coulomb_energy_of_unlike_nuclei_is_symmetric_and_bare_at_contact():
    ti, ni = (float(atomic_numbers[s]) for s in ("Ti", "Ni"))
    assert float(repulsion.screened_coulomb(0.8, ti, ni)) == pytest.approx(
        float(repulsion.screened_coulomb(0.8, ni, ti)), rel=1e-14
    )
    bare = 14.399645 * ti * ni / 1e-6
    assert float(repulsion.screened_coulomb(1e-6, ti, ni)) == pytest.approx(bare, rel=1e-4)


def test_the_repulsion_is_whole_inside_and_nothing_outside_with_two_continuous_derivatives():
    outer = repulsion.OUTER * 3.2  # two covalent radii of titanium, Å
    inner = repulsion.INNER * outer
    energy = pair_energy()
    assert 1.6 < outer < 1.75
    assert float(energy(outer + 1e-6)) == 0.0
    whole = float(repulsion.screened_coulomb(inner - 0.05, 22.0, 22.0))
    assert float(energy(inner - 0.05)) == pytest.approx(whole, rel=1e-12)
    first, second = jax.jit(jax.grad(energy)), jax.jit(jax.grad(jax.grad(energy)))
    for edge in (inner, outer):
        for f, size in ((energy, 1.0), (first, 10.0), (second, 1000.0)):
            # across 2e-7 Å a continuous function of these slopes changes by less than 1e-4 of its size
            assert float(f(edge - 1e-7)) == pytest.approx(float(f(edge + 1e-7)), abs=1e-4 * size, rel=1e-5)


def test_the_repulsion_never_attracts():
    slopes = jax.jit(jax.vmap(jax.grad(pair_energy())))(jnp.linspace(0.1, 2.0, 400))
    assert float(slopes.max()) <= 0


def test_forces_are_minus_the_derivative_of_the_energy_where_the_repulsion_is_switched():
    model = network(0.1)
    frame = bulk("Ti", "hcp", a=1.9, c=3.0) * (2, 1, 1)  # nearest neighbours 1.5 to 1.7 Å apart once rattled
    frame.rattle(0.15, seed=3)
    system, near = laid_out(frame, TINY.cutoff)
    assert float(jnp.sum(repulsion.repulsion(displacements(system, near), near, system.numbers))) > 0.1
    energy = jax.jit(lambda r: model.energies(system._replace(positions=r), near)[0])
    forces, h = jax.jit(Potential.evaluate)(model, system, near).forces, 1e-4
    for atom, axis in ((0, 0), (1, 2), (3, 1)):
        step = jnp.zeros_like(system.positions).at[atom, axis].set(h)
        slope = float(energy(system.positions + step) - energy(system.positions - step)) / (2 * h)
        assert float(forces[atom, axis]) == pytest.approx(-slope, rel=1e-5, abs=1e-6)


def test_a_dimer_and_a_compressed_crystal_have_no_hole():
    """With a network that says a few eV, the energy only falls from 0.5 to 1.2 Å, and never lies below that at 2 Å."""
    evaluate = jax.jit(Potential.energies)
    for seed in range(3):
        model = network(0.05, seed)
        distances = np.arange(0.5, 2.01, 0.02)
        near = laid_out(dimer(1.0), TINY.cutoff)[1]
        energies = [float(evaluate(model, laid_out(dimer(r), TINY.cutoff)[0], near)[0]) for r in distances]
        assert np.ptp(energies[-10:]) < 3  # moderate
        assert (np.diff(energies)[distances[1:] < 1.5] < 0).all()
        assert min(energies[:-10]) > energies[-1] - 0.5


@pytest.mark.parametrize(("symbols", "said_at_least"), [(("Ti",), 10), (("H", "Ti"), 5)])
def test_no_network_outweighs_the_repulsion(symbols, said_at_least):
    """One of the models that ship fell by 1000 eV between 1 and 0.5 Å, where ZBL rises by 700."""
    evaluate = jax.jit(Potential.energies)
    near = laid_out(dimer(1.0), TINY.cutoff)[1]
    for seed in range(3):
        wild = network(0.5, seed, symbols)
        alone = network(0.0, symbols=symbols)
        distances = np.arange(0.5, 1.02, 0.02)
        said, zbl = (
            np.array([float(evaluate(model, laid_out(dimer(r), TINY.cutoff)[0], near)[0]) for r in distances])
            for model in (wild, alone)
        )
        assert abs(said - zbl).max() > said_at_least
        np.testing.assert_allclose(np.diff(said), np.diff(zbl), rtol=1e-9)


def test_pairs_are_shown_to_the_network_as_they_are_unless_they_nearly_touch(rng):
    outer = repulsion.OUTER * 3.2
    near = laid_out(dimer(1.2), 5.0)[1]

    @jax.jit
    @jax.vmap
    def shown(r):
        vectors = r * jnp.array([[[0.6, 0.8, 0]], [[-0.6, -0.8, 0]]])
        seen = repulsion.kept_apart(vectors, near, jnp.full(2, 22))
        return seen, jnp.sqrt(jnp.sum(seen[0, 0] ** 2))

    far = jnp.asarray(rng.uniform(repulsion.CLOSEST * outer + 1e-9, 4.0, 200))
    np.testing.assert_array_equal(shown(far)[0][:, 0, 0], far[:, None] * jnp.array([0.6, 0.8, 0]))
    r = jnp.linspace(0.06, 1.3, 2000)
    _, distance = shown(r)
    assert float(distance.min()) == pytest.approx((repulsion.CLOSEST + repulsion.INNER) / 2 * outer)
    slope = np.gradient(np.asarray(distance), np.asarray(r))
    assert ((slope > -1e-9) & (slope < 1 + 1e-9)).all()
    assert np.abs(np.diff(slope)).max() < 0.02  # 1.9 / width times the step: no kink
    first = jax.jit(jax.vmap(jax.grad(lambda r: shown(r[None])[1][0])))(r)
    np.testing.assert_allclose(first[1:-1], slope[1:-1], atol=1e-3)


def test_a_network_gets_the_repulsion_and_lennard_jones_does_not():
    assert network(0.0).repulsion
    assert not Potential.create(jax.random.key(0), LennardJones(6.0), {"Ar": 0.0}).repulsion
    r = 1.2
    energy = jax.jit(Potential.energies)(network(0.0), *laid_out(dimer(r), TINY.cutoff))
    alone = jax.jit(Potential.energies)(network(0.0), *laid_out(dimer(9.0), TINY.cutoff))
    assert float(energy[0] - alone[0]) == pytest.approx(float(pair_energy()(r)), rel=1e-9)


def test_a_file_says_whether_the_repulsion_is_part_of_the_potential(tmp_path):
    made = network(0.1)
    made = made.with_params(jax.tree.map(lambda x: x.astype(jnp.float32), made.params))
    made.save(tmp_path / "with.safetensors")
    assert Potential.load(tmp_path / "with.safetensors").repulsion
    said = storage.read_metadata(tmp_path / "with.safetensors")
    older = {key: value for key, value in said["potential"].items() if key not in ("repulsion", "source")}
    storage.write_tree(tmp_path / "old.safetensors", made.params, {**said, "potential": older})
    old = Potential.load(tmp_path / "old.safetensors")
    assert (old.repulsion, old.source) == (False, "")
    frame = dimer(1.2)
    said, found = (jax.jit(Potential.energies)(p, *laid_out(frame, TINY.cutoff))[0] for p in (made, old))
    # binding energies of tens of eV in single precision
    assert float(said - found) == pytest.approx(float(pair_energy()(1.2)), rel=1e-5)


def test_energies_stay_finite_in_single_precision_however_close_two_atoms_come():
    system, near = laid_out(dimer(1.0), 5.0)
    for r in (1e-3, 0.05, 0.3):
        vectors = jnp.array([[[r, 0, 0]], [[-r, 0, 0]]], jnp.float32)
        found = repulsion.repulsion(vectors, near, system.numbers)
        slope = jax.grad(lambda v: jnp.sum(repulsion.repulsion(v, near, system.numbers)))(vectors)  # noqa: B023
        assert found.dtype == jnp.float32
        assert np.isfinite(found).all()
        assert np.isfinite(slope).all()
