"""Potentials: forces, stress and stiffness are derivatives of the energy; files are read back unchanged."""

import json
import struct

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import argon, laid_out
from ase.build import bulk

from fusedff.network.dimenet import DimeNet
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential
from fusedff.units import strain_from_voigt

TINY = DimeNet(
    cutoff=4.2, embedding=8, blocks=1, radial=4, spherical=3, interaction=4, basis=4, type_embedding=4, output=8,
    output_layers=1, layers_before_skip=1, layers_after_skip=1,
)  # fmt: skip

evaluate, born = jax.jit(Potential.evaluate), jax.jit(Potential.born)


def network():
    """A network that says something: the last layer of a new one is zero."""
    rng = np.random.default_rng(0)
    made = Potential.create(jax.random.key(0), TINY, {"Ti": -5.0}, scale=0.5)
    return made.with_params(jax.tree.map(lambda x: jnp.asarray(x + 0.5 * rng.normal(size=x.shape)), made.params))


def hexagonal(symbol, a, c, seed=1):
    frame = bulk(symbol, "hcp", a=a, c=c) * (2, 1, 1)
    frame.rattle(0.1, seed=seed)
    return frame


MODELS = {
    "DimeNet": (network, lambda: hexagonal("Ti", 2.95, 4.68)),
    "Lennard-Jones": (argon, lambda: hexagonal("Ar", 3.6, 5.9)),
}


@pytest.fixture(scope="module", params=MODELS)
def subject(request):
    """A potential, a rattled hexagonal cell, and its energies as a function of the cell: one compilation."""
    model, frame = (make() for make in MODELS[request.param])
    system, near = laid_out(frame, model.cutoff + 0.3)  # pairs beyond the cut-off are there but count nothing

    @jax.jit
    def energy(positions, cell):
        return model.energies(system._replace(positions=positions, cells=cell[None]), near)[0]

    return model, frame, (system, near), lambda r, cell: float(energy(jnp.asarray(r), jnp.asarray(cell)))


def derivative(f, h):
    """Fourth-order central difference at 0: errors of h^4 f^(5) / 30 and of 1e-15 f / h."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def test_forces_are_minus_the_derivative_of_the_energy(subject):
    model, frame, where, energy = subject
    forces = np.asarray(evaluate(model, *where).forces)
    for atom, axis in [(0, 0), (1, 1), (2, 2), (3, 0)]:
        direction = np.zeros((len(frame), 3))
        direction[atom, axis] = 1
        slope = derivative(lambda h, d=direction: energy(frame.positions + h * d, frame.cell.array), 1e-3)
        assert forces[atom, axis] == pytest.approx(-slope, rel=1e-6, abs=1e-8)
    np.testing.assert_allclose(forces.sum(0), 0, atol=1e-11)


def strained(frame, strain):
    """Positions and cell after the symmetric deformation sqrt(1 + 2 eta), eta from engineering Voigt."""
    values, vectors = np.linalg.eigh(np.eye(3) + 2 * strain_from_voigt(np.asarray(strain)))
    stretch = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    return frame.positions @ stretch, frame.cell.array @ stretch


def test_stress_is_the_strain_derivative_of_the_energy_in_a_hexagonal_cell(subject):
    model, frame, where, energy = subject
    stress = np.asarray(evaluate(model, *where).stress)[0]
    assert np.abs(stress).min() > 1e-6  # rattled: all six are there
    found = [
        derivative(lambda h, d=direction: energy(*strained(frame, h * d)), 1e-3) / frame.get_volume()
        for direction in np.eye(6)
    ]
    np.testing.assert_allclose(stress, found, rtol=1e-6, atol=1e-9)


def test_born_stress_is_the_stress(subject):
    model, _, where, _ = subject
    np.testing.assert_allclose(born(model, *where)[0], evaluate(model, *where).stress, rtol=1e-10, atol=1e-14)


def test_born_stiffness_is_the_second_derivative_of_the_energy_in_lagrangian_strain(subject):
    model, frame, where, energy = subject
    stiffness = np.asarray(born(model, *where)[1])[0]
    np.testing.assert_allclose(stiffness, stiffness.T, rtol=1e-9, atol=1e-12)
    h, eye = 1e-3, np.eye(6)
    for i, j in [(0, 0), (2, 2), (3, 3), (5, 5), (0, 1), (0, 2), (3, 4), (0, 5)]:
        mixed = [
            energy(*strained(frame, h * (a * eye[i] + b * eye[j]))) for a, b in [(1, 1), (1, -1), (-1, 1), (-1, -1)]
        ]
        second = (mixed[0] - mixed[1] - mixed[2] + mixed[3]) / (4 * h**2) / frame.get_volume()
        # an error of h^2 times fourth derivatives, which are up to a few hundred times the stiffness
        assert stiffness[i, j] == pytest.approx(second, rel=2e-3, abs=2e-3 * np.abs(stiffness).max() / 10)


def test_a_batch_of_different_cells_gives_what_each_cell_gives_alone():
    model = argon()
    frames = [hexagonal("Ar", 3.6, 5.9), bulk("Ar", "fcc", a=5.3), bulk("Ar", "fcc", a=5.4, cubic=True)]
    frames[2].rattle(0.1, seed=5)
    together = evaluate(model, *laid_out(frames, model.cutoff))
    alone = [evaluate(model, *laid_out(frame, model.cutoff)) for frame in frames]
    # the same numbers summed in another order
    for found, parts in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(found, np.concatenate(parts), rtol=1e-12, atol=1e-14)


def test_total_energies_are_binding_energies_and_the_reference_of_every_species():
    params = {"epsilon": jnp.array([0.01, 0.02]), "sigma": jnp.array([3.0, 3.4])}
    model = Potential(params, LennardJones(6.0), (10, 18), (-1.5, -2.5))
    apart = ase.Atoms("ArNe2", positions=[[0, 0, 0], [9, 0, 0], [0, 9, 0]], cell=40 * np.eye(3), pbc=True)
    assert model.reference_energy(apart.numbers) == -2.5 - 2 * 1.5
    assert float(evaluate(model, *laid_out(apart, 6.0)).energy[0]) == pytest.approx(0.0, abs=1e-15)
    pair = ase.Atoms("ArNe", positions=[[0, 0, 0], [3.5, 0, 0]], cell=40 * np.eye(3), pbc=True)
    sigma, epsilon, r = 3.2, np.sqrt(0.01 * 0.02), 3.5  # Lorentz-Berthelot; the switch starts at 4.8 Å
    expected = 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6)
    found = evaluate(model, *laid_out(pair, 6.0)).energy
    assert float(found[0]) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(model.total(found, [pair]), expected - 4.0, rtol=1e-12)


def test_the_scale_multiplies_what_the_model_says():
    model = argon()
    tripled = Potential(model.params, model.model, model.numbers, model.reference, 3.0)
    where = laid_out(hexagonal("Ar", 3.6, 5.9), model.cutoff)
    np.testing.assert_allclose(
        evaluate(tripled, *where).forces, 3 * evaluate(model, *where).forces, rtol=1e-12, atol=1e-15
    )


def test_an_unknown_element_is_refused_by_name():
    argon().require_species(np.array([18, 18]))
    with pytest.raises(ValueError, match=r"knows Ar but not Al, Ti; train one on frames"):
        argon().require_species(np.array([22, 18, 13]))


# --- storing -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A saved network in single precision, as training makes it."""
    path = tmp_path_factory.mktemp("potentials") / "ti.safetensors"
    made = network()
    made = made.with_params(jax.tree.map(lambda x: x.astype(jnp.float32), made.params))
    made.save(path, note="of no value")
    return path, made


def test_a_potential_comes_back_bit_for_bit(stored):
    path, made = stored
    back = Potential.load(path)
    assert (back.model, back.numbers, back.reference, back.scale) == (TINY, (22,), (-5.0,), 0.5)
    assert jax.tree.structure(back.params) == jax.tree.structure(made.params)
    for mine, theirs in zip(jax.tree.leaves(back.params), jax.tree.leaves(made.params), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def test_lennard_jones_is_stored_too(tmp_path):
    model = argon(dtype=jnp.float32)
    model.save(tmp_path / "ar.safetensors")
    back = Potential.load(tmp_path / "ar.safetensors")
    assert back.model == model.model
    np.testing.assert_array_equal(back.params["sigma"], model.params["sigma"])


def test_what_is_said_about_a_potential_is_kept_as_json_and_nothing_is_pickled(stored):
    path, _ = stored
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])  # safetensors: a JSON header, then raw numbers
    assert json.loads(header["__metadata__"]["about"]) == {"note": "of no value"}
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    assert len(content) == 8 + size + end
