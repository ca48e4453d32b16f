"""Stored snapshots with other parameters: energies and observables, and derivatives of reweighted averages.

Snapshots are evaluated one after the other, so that memory does not grow with their number; cells are shared among the
devices. Neighbours are searched anew in each snapshot, with the periodic `images` of `neighbors.image_offsets` and
`capacity` slots per atom within `cutoff` (Å).

The functions are to be compiled with the arguments up to `capacity` static, by their caller (`training.terms`), which
keeps what `jax.jit` returns as long as it needs it: functions jitted in this module would keep every program for the
life of the process.
"""

import jax
import jax.numpy as jnp

from fusedff.geometry import neighbors
from fusedff.runtime import devices
from fusedff.simulation import reweighting
from fusedff.simulation.cells import PER_CELL


def evaluate(observe, cutoff, images, capacity, potential, cells, positions):
    """Energies (n_snapshots, n_cells) in eV and observables (n_snapshots, n_cells, n_quantities) of snapshots.

    `positions` (n_snapshots, n_cells, n, 3) are those of `cells`; `observe` is called as `Simulation` does.
    """

    def on_device(potential, cells, positions):
        def one(r):
            system = cells.system(r)
            near = neighbors.search_cells(system, cutoff, capacity, images)
            evaluation = potential.evaluate(system, near)
            return evaluation.energy, observe(potential, system, near, evaluation)

        return jax.lax.map(one, positions)

    on_devices = devices.shard_map_cells(on_device, in_axes=(None, PER_CELL, 1), out_axes=1, n=cells.n_cells)
    return on_devices(potential, cells, positions)


def derivatives(weighted_sum, cutoff, images, capacity, potential, cells, positions, w, observed, cotangents, beta):
    """d f / d params of each of n functions f of reweighted averages; leaves have an axis (n,) before those of params.

    `cotangents` (n, n_cells, n_quantities) are the derivatives of the functions with respect to the averages, `w`
    (n_snapshots, n_cells) the weights of the snapshots, `observed` (n_snapshots, n_cells, n_quantities) what `evaluate`
    gives, and `beta` (n_cells,) is 1 / kT in 1/eV. `weighted_sum(potential, system, near, coefficients)` returns
    sum_k coefficients_k observed_k and the energy, both (n_cells,); None for observables that do not depend on the
    parameters. Formula: `reweighting.gradient`.
    """

    def on_device(potential, cells, positions, w, observed, cotangents, beta):
        def energies(params, r):
            system = cells.system(r)
            near = neighbors.search_cells(system, cutoff, capacity, images)
            return potential.with_params(params).energies(system, near)

        def scalar(params, r, along, against):
            if weighted_sum is None:
                return jnp.sum(against * energies(params, r))
            system = cells.system(r)
            near = neighbors.search_cells(system, cutoff, capacity, images)
            contracted, energy = weighted_sum(potential.with_params(params), system, near, along)
            return jnp.sum(contracted + against * energy)

        if weighted_sum is None and len(cotangents) > len(beta):
            # many functions of the same snapshots, e.g. a curve: the energies of the cells are differentiated once
            return devices.sum_over_devices(
                reweighting.gradients(energies, potential.params, positions, w, observed, cotangents, beta)
            )

        def gradient(cotangent):
            return reweighting.gradient(scalar, potential.params, positions, w, observed, cotangent, beta)

        return devices.sum_over_devices(jax.lax.map(gradient, cotangents))

    in_axes = (None, PER_CELL, 1, 1, 1, 1, 0)
    on_devices = devices.shard_map_cells(on_device, in_axes, out_axes=None, n=cells.n_cells)
    return on_devices(potential, cells, positions, devices.zero_for_repeats(w, 1), observed, cotangents, beta)
