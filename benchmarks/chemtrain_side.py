"""chemtrain's side of the comparison, in its own environment: functions (peer, case) -> `Work` for every quantity.

Lengths are in nm, boxes have lattice vectors as columns. There are two configurations. "example" is that of chemtrain's
titanium notebook: capacity of the neighbour list for 2.5 times the actual neighbours, 12 000 edges and 470 000
triplets, which fit its cells of 256 atoms. "tight" has the capacity that the cells of this benchmark need, and 2 %
more. Energies, targets and loss weights are not converted to its units, since their values do not affect the time.
"""

from functools import partial

import jax
import jax.numpy as jnp
import jax_md_mod  # noqa: F401, I001 - adapts jax-md to the jax it is installed with, so it comes first
from chemtrain import quantity
from chemtrain.ensemble import evaluation, reweighting, sampling
from chemtrain.learn import difftre, force_matching, max_likelihood
from jax_md import partition, simulate, space
from jax_md_mod import custom_quantity, custom_space
from jax_md_mod.model import neural_networks

from benchmarks.case import (
    BATCHES,
    CELLS,
    EVALUATIONS,
    FRICTION_PER_PS,
    SNAPSHOTS,
    STEPS,
    TEMPERATURE,
    TIMESTEP_FS,
    Case,
)
from benchmarks.work import Work, in_scan

CUTOFF = 0.5  # nm
MASS = 47.867  # u
SLACK = 1.02


class Chemtrain:
    """A case as chemtrain represents it: fractional positions, neighbour list, energy function."""

    def __init__(self, case: Case, configuration: str):
        self.params = jax.tree_util.tree_map(jnp.asarray, case.peer_params)
        self.box, to_fractional = custom_space.init_fractional_coordinates(jnp.asarray(case.cell.T / 10, jnp.float32))
        self.positions = jax.vmap(to_fractional)(jnp.asarray(case.positions / 10, jnp.float32))
        displacement, self.shift = space.periodic_general(self.box, fractional_coordinates=True)
        tight = configuration == "tight"
        edges, triplets = (int(SLACK * n) for n in (case.edges, case.triplets)) if tight else (12_000, 470_000)
        self.neighbor_fn = partition.neighbor_list(
            displacement,
            self.box,
            CUTOFF,
            disable_cell_list=True,
            fractional_coordinates=True,
            capacity_multiplier=1.0 if tight else 2.5,
        )
        here = self.neighbor_fn.allocate(self.positions[0]).idx.shape[1]
        extra = int(case.neighbors) + 2 - here if tight else 3
        self.neighbors = self.neighbor_fn.allocate(self.positions[0], extra_capacity=extra)
        _, energy = neural_networks.dimenetpp_neighborlist(
            displacement, CUTOFF, n_species=1, embed_size=32, max_edges=edges, max_triplets=triplets
        )

        def template(params):
            def energy_fn(positions, neighbor, **kwargs):
                species = jnp.zeros(positions.shape[0], int)
                (total,) = energy(params, positions, neighbor, species=species, **kwargs)
                return total

            return energy_fn

        self.template = template
        self.state_point = {"kT": jnp.asarray(TEMPERATURE * quantity.kb), "box": self.box}

    def quantities(self, **functions):
        """Function of parameters and positions (snapshots, n, 3) that evaluates chemtrain quantities one by one."""
        return lambda params, positions: evaluation.quantity_map(
            evaluation.SimpleState(positions), functions, self.neighbors, {}, {"box": self.box}, params
        )

    def start(self):
        """Simulator template, and the initial state of a simulation at the first snapshot."""
        initialize, template = sampling.initialize_simulator_template(
            simulate.nvt_langevin,
            shift_fn=self.shift,
            nbrs=self.neighbors,
            init_with_PRNGKey=True,
            extra_simulator_kwargs={"dt": TIMESTEP_FS / 1000, "gamma": FRICTION_PER_PS, "kT": None},
        )
        state = initialize(
            jax.random.PRNGKey(0),
            self.positions[0],
            energy_or_force_fn=self.template(self.params),
            init_sim_kwargs={"mass": MASS, "neighbor": self.neighbors, **self.state_point},
            init_nbrs_kwargs={"box": self.box},
        )
        return template, state


def energy(peer: Chemtrain, case: Case) -> Work:
    run = jax.jit(peer.quantities(energy=custom_quantity.energy_wrapper(peer.template)))
    return Work(partial(run, peer.params, peer.positions[:1]))


def _forces(peer):
    return peer.quantities(both=custom_quantity.energy_force_wrapper(peer.template))


def forces(peer: Chemtrain, case: Case) -> Work:
    return Work(partial(jax.jit(_forces(peer)), peer.params, peer.positions[:1]))


def forces_in_scan(peer: Chemtrain, case: Case) -> Work:
    stack = jnp.resize(peer.positions, (EVALUATIONS, case.n_atoms, 3))
    return Work(partial(jax.jit(_forces(peer)), peer.params, stack), EVALUATIONS)


def md(peer: Chemtrain, case: Case) -> Work:
    template, state = peer.start()
    timings = sampling.TimingClass(
        t_equilib_start=None,
        t_production_start=None,
        t_production_end=None,
        timesteps_per_printout=STEPS,
        time_step=TIMESTEP_FS / 1000,
    )
    state_point, *_ = sampling.canonicalize_state_kwargs(peer.state_point, None)

    @jax.jit
    def run(params, state):
        _, step = template(peer.template(params))
        return sampling.run_to_next_printout_neighbors(step, timings, state_point)(state)[0]

    return Work(partial(run, peer.params, state), STEPS)


def _force_matching(peer, case):
    """Loss and gradient as chemtrain's `ForceMatching` trainer computes them, and a batch."""
    virial = custom_quantity.init_virial_stress_tensor(peer.template, reference_box=None, include_kinetic=False)
    model = force_matching.init_model(
        peer.neighbors,
        {
            "F": custom_quantity.force_wrapper(None),
            "U": custom_quantity.energy_wrapper(None),
            "virial": virial,
        },
        feature_extract_fns={"energy_and_force": custom_quantity.energy_force_wrapper(peer.template)},
    )
    loss = max_likelihood._get_param_loss_fn(
        force_matching.init_loss_fn(gammas={"virial": 4e-6, "U": 1e-6, "F": 1e-2}), model
    )
    batch = {
        "R": peer.positions[:CELLS],
        "box": jnp.repeat(peer.box[None], CELLS, 0),
        "U": jnp.asarray(case.energy[:CELLS], jnp.float32),
        "F": jnp.asarray(10 * case.forces[:CELLS], jnp.float32),
        "virial": jnp.zeros((CELLS, 3, 3)),
    }
    return jax.value_and_grad(loss, has_aux=True), batch


def force_matching_(peer: Chemtrain, case: Case) -> Work:
    """Gradient of a loss of energy, forces and virial, all from one evaluation."""
    gradient, batch = _force_matching(peer, case)
    return Work(partial(jax.jit(gradient), peer.params, batch))


def force_matching_in_scan(peer: Chemtrain, case: Case) -> Work:
    gradient, batch = _force_matching(peer, case)

    def without_predictions(params, batch):
        (value, _), slope = gradient(params, batch)
        return value, slope

    return in_scan(without_predictions, peer.params, batch, BATCHES)


def _born(peer):
    return {
        "born_stiffness": custom_quantity.init_stiffness_tensor_stress_fluctuation(peer.template, reference_box=None),
        "born_stress": custom_quantity.init_sigma_born(peer.template, reference_box=None),
    }


def born(peer: Chemtrain, case: Case) -> Work:
    return Work(partial(jax.jit(peer.quantities(**_born(peer))), peer.params, peer.positions[:1]))


def difftre_(peer: Chemtrain, case: Case) -> Work:
    """Loss and gradient from stored snapshots, as chemtrain's DiffTRe trainers compute them, without the optimizer."""
    template, state = peer.start()
    timings = sampling.process_printouts(0.002, 2.0, 1.0, 0.1)  # of a simulation that is never run here
    _, *reweight = reweighting.init_pot_reweight_propagation_fns(
        peer.template,
        template,
        peer.neighbor_fn,
        timings,
        peer.state_point,
        energy_batch_size=SNAPSHOTS,
        safe_propagation=False,
    )
    observables = {
        "elastic_constants": quantity.observables.init_born_stiffness_tensor(
            reference_box=None,
            dof=3 * case.n_atoms,
            kT=None,
            elastic_constant_function=quantity.observables.stiffness_tensor_components_hexagonal_crystal,
        ),
        "pressure": quantity.observables.init_traj_mean_fn("pressure"),
    }
    quantities = _born(peer) | {"pressure": custom_quantity.init_pressure(peer.template, reference_box=None)}
    loss, *_ = difftre.init_difftre_gradient_and_propagation(
        reweight, difftre.init_default_loss_fn(observables, {}), quantities, peer.template, wrapped=False
    )
    targets = {
        "elastic_constants": {"target": jnp.ones(5), "gamma": 1e-10},
        "pressure": {"target": jnp.asarray(0.0), "gamma": 1e-9},
    }
    snapshots = jax.tree_util.tree_map(lambda x: jnp.repeat(x[None], SNAPSHOTS, 0), state.sim_state)
    sampled = jax.jit(peer.quantities(energy=custom_quantity.energy_wrapper(peer.template)))
    trajectory = sampling.TrajectoryState(
        sim_state=state,
        trajectory=snapshots.set(position=peer.positions),
        dynamic_kwargs={},
        static_kwargs=peer.state_point,
        aux=sampled(peer.params, peer.positions),
        energy_params=peer.params,
    )
    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return Work(partial(run, peer.params, trajectory, peer.state_point, targets), SNAPSHOTS)


def answers(peer: Chemtrain, case: Case) -> dict:
    """Energy and forces (n, 3) of the first snapshot, in fusedff's units."""
    found = forces(peer, case).run()["both"]
    return {"energy": found["energy"][0], "forces": found["force"][0] / 10}


QUANTITIES = {
    "energy": energy,
    "forces": forces,
    "forces_in_scan": forces_in_scan,
    "md": md,
    "force_matching": force_matching_,
    "force_matching_in_scan": force_matching_in_scan,
    "born": born,
    "difftre": difftre_,
    "difftre_default": difftre_,
}
