"""A potential in LAMMPS, against LAMMPS' own Lennard-Jones and against direct evaluation."""

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import EPSILON, SIGMA, laid_out
from ase.build import bulk

from fusedff.interfaces import lammps
from fusedff.interfaces.evaluator import Evaluator
from fusedff.network.dimenet import DimeNet
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential
from fusedff.units import KB

try:
    lammps.start("-log", "none", "-screen", "none").close()
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

BAR = 1e5 * ase.units.Pascal  # eV/Å^3
NEAREST = 3.72  # Å, distance of neighbours in solid argon
# No fcc shell (1, 1.414, 1.732, 2 ...) lies between onset and cut-off: inside, the potential is bare Lennard-Jones.
CUTOFF, ONSET = 1.93 * NEAREST, 1.80 / 1.93
PARAMS = {"epsilon": jnp.array([EPSILON]), "sigma": jnp.array([SIGMA])}
ARGON = Potential(PARAMS, LennardJones(CUTOFF, ONSET), (18,), (0.0,))


def crystal(repeats, spacing=NEAREST, rattle=0.02):
    """Slightly sheared fcc argon in repeated primitive cells, whose vectors are already those of a LAMMPS box."""
    a, b, c = [1, 0, 0], [0.47, np.sqrt(0.75), 0], [0.47, np.sqrt(1 / 12), np.sqrt(2 / 3)]
    frame = ase.Atoms("Ar", cell=spacing * np.array([a, b, c]), pbc=True) * repeats
    frame.rattle(rattle, seed=1)
    return frame


def session(frame, *commands, types=None, units="metal"):
    """LAMMPS with the atoms of a frame, wrapped and in shuffled order, their IDs telling which is which."""
    lmp = lammps.start("-log", "none", "-screen", "none")
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = frame.cell.array
    symbols = sorted(set(frame.symbols))
    lmp.commands_list(
        [
            f"units {units}",
            "atom_modify map array sort 20 3.0",
            f"region box prism 0 {lx} 0 {ly} 0 {lz} {xy} {xz} {yz}",
            f"create_box {len(symbols)} box",
            *(f"mass {i} {ase.data.atomic_masses[ase.data.atomic_numbers[s]]}" for i, s in enumerate(symbols, start=1)),
        ]
    )
    ids = np.random.default_rng(3).permutation(len(frame))
    wrapped = frame.get_positions(wrap=True)[ids]
    kinds = [symbols.index(frame.symbols[i]) + 1 for i in ids]
    created = lmp.create_atoms(len(frame), (ids + 1).tolist(), kinds, wrapped.ravel().tolist())
    assert created == len(frame)
    lmp.commands_list([*commands, "thermo_style custom step pe etotal econserve press"])
    return lmp


def forces(lmp):
    """Forces (n, 3) in the order of the IDs."""
    n = lmp.extract_setting("nlocal")
    return lmp.numpy.extract_atom("f")[:n][np.argsort(lmp.numpy.extract_atom("id")[:n])]


def stress(lmp):
    """ASE's stress (6,) from the pressure of atoms at rest."""
    return np.array([-lmp.get_thermo(p) * BAR for p in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")])


def frame_of(lmp, symbol="Ar"):
    """What LAMMPS holds as an ASE frame."""
    n = lmp.extract_setting("nlocal")
    cell, pbc = lammps._box(lmp)
    return ase.Atoms([symbol] * n, np.array(lmp.numpy.extract_atom("x")[:n]), cell=cell, pbc=pbc)


_evaluate = jax.jit(Potential.evaluate)


def directly(model, frame):
    found = _evaluate(model, *laid_out(frame, model.cutoff))
    return found._replace(energy=model.total(found.energy, [frame]))


def potential_energy(lmp, model):
    """Energy per atom as LAMMPS has it, and evaluated anew with neighbours searched from nothing."""
    frame = frame_of(lmp)
    return lmp.get_thermo("pe") / len(frame), float(directly(model, frame).energy[0]) / len(frame)


def test_a_thousand_atoms_in_a_triclinic_box_have_the_energy_forces_and_pressure_of_lammps_own_lennard_jones():
    frame = crystal((10, 10, 10))
    theirs = session(frame, f"pair_style lj/cut {1.87 * NEAREST}", f"pair_coeff 1 1 {EPSILON} {SIGMA}")
    ours = session(frame, "pair_style none")
    lammps.attach(ours, ARGON, {1: "Ar"})
    for lmp in (theirs, ours):
        lmp.command("run 0")
    expected = directly(ARGON, frame)
    # sums of the same terms in another order; LAMMPS' bar differs from CODATA's by 1e-7
    for energy in (ours.get_thermo("pe"), float(expected.energy[0])):
        assert energy == pytest.approx(theirs.get_thermo("pe"), rel=1e-10)
    for force in (forces(ours), expected.forces):
        np.testing.assert_allclose(force, forces(theirs), rtol=1e-8, atol=1e-10)
    scale = np.abs(stress(theirs)).max()
    for tensor in (stress(ours), expected.stress[0]):
        np.testing.assert_allclose(tensor, stress(theirs), rtol=1e-6, atol=1e-6 * scale)


def test_a_network_of_two_species_says_the_same_inside_lammps_and_outside(key):
    model = DimeNet(cutoff=4.0, embedding=8, blocks=1, radial=3, spherical=2, interaction=4, basis=4, type_embedding=4,
                    output=8, output_layers=1, layers_after_skip=1)  # fmt: skip
    network = Potential.create(key, model, {"Ti": -5.0, "Al": -3.0})
    frame = bulk("Ti", "hcp", a=2.95, c=4.68, orthorhombic=True) * (3, 2, 2)
    frame.symbols[::3] = "Al"
    frame.rattle(0.1, seed=2)
    lmp = session(frame, "pair_style zero 4.0", "pair_coeff * *")
    lammps.attach(lmp, network, {1: "Al", 2: "Ti"})
    lmp.command("run 0")
    expected = directly(network, frame)
    assert lmp.get_thermo("pe") == pytest.approx(float(expected.energy[0]), rel=1e-10)
    np.testing.assert_allclose(forces(lmp), expected.forces, atol=1e-8 * np.abs(expected.forces).max())
    np.testing.assert_allclose(stress(lmp), expected.stress[0], atol=1e-6 * np.abs(expected.stress[0]).max())


SMOOTH = Potential(PARAMS, LennardJones(7.0), (18,), (0.0,))


def test_the_energies_of_the_atoms_reach_the_computes_of_lammps():
    frame = crystal((2, 2, 2), rattle=0.1)
    lmp = session(frame, "pair_style none", "fix move all nve", "compute shares all pe/atom")
    lammps.attach(lmp, ARGON, {1: "Ar"})
    lmp.command("compute total all reduce sum c_shares")
    lmp.command("thermo_style custom step pe c_total")
    lmp.command("run 3")
    shares = lmp.numpy.extract_compute("shares", 1, 1)[: len(frame)]
    assert shares.sum() == pytest.approx(lmp.get_thermo("pe"), rel=1e-9)
    expected = Evaluator(ARGON)(frame_of(lmp)).energies
    np.testing.assert_allclose(np.sort(shares), np.sort(expected), rtol=1e-6)


@pytest.mark.parametrize("boundary", ["p p p", "p p f"])
def test_newtons_dynamics_conserve_energy(boundary):
    frame = crystal((4, 4, 4))
    lmp = session(frame, "pair_style none", "velocity all create 60 7 mom yes", "timestep 0.002", "fix move all nve")
    if boundary == "p p f":
        lmp.command("change_box all z final -20 40 boundary p p f")  # a slab
    lammps.attach(lmp, SMOOTH, {1: "Ar"})
    lmp.command("run 0")
    before = lmp.get_thermo("etotal")
    lmp.command("run 200")
    # of the thermal energy, Verlet's error is of order (w dt)^2 / 24: 5e-5 for argon's fastest vibration, 0.5 ps
    assert abs(lmp.get_thermo("etotal") - before) < 3e-4 * len(frame) * KB * 60
    assert np.abs(np.sum(forces(lmp), 0)).max() < 1e-10
    energy, anew = potential_energy(lmp, SMOOTH)
    assert energy == pytest.approx(anew, rel=1e-10)


def test_a_thermostat_keeps_its_conserved_quantity_while_hot_argon_melts_and_atoms_cross_the_box():
    frame = crystal((4, 4, 4), spacing=3.95)
    lmp = session(frame, "pair_style none", "velocity all create 250 7", "timestep 0.004")
    lmp.command("fix move all nvt temp 250 250 0.4")
    lammps.attach(lmp, SMOOTH, {1: "Ar"})
    lmp.command("run 0")
    before, start = lmp.get_thermo("econserve"), frame_of(lmp).positions
    lmp.command("run 500")
    # the step is twice as long as above; it wanders by 3e-4 of the thermal energy and does not drift
    assert abs(lmp.get_thermo("econserve") - before) < 1e-3 * len(frame) * KB * 250
    n = len(frame)
    images = lmp.numpy.extract_atom("image")[:n]
    assert len(set(images.tolist())) > 1  # atoms have crossed the boundary
    assert np.linalg.norm(frame_of(lmp).positions - start, axis=1).max() > 3.0
    energy, anew = potential_energy(lmp, SMOOTH)
    assert energy == pytest.approx(anew, rel=1e-10)


def test_a_barostat_turns_the_sheared_box_into_one_without_stress():
    frame = crystal((4, 4, 4), spacing=3.80)
    lmp = session(frame, "pair_style none", "velocity all create 10 7", "timestep 0.004")
    lammps.attach(lmp, SMOOTH, {1: "Ar"})
    lmp.command("fix move all npt temp 5 5 0.2 tri 0 0 1.0 drag 1.0")
    lmp.command("run 0")
    before, cell = stress(lmp), lammps._box(lmp)[0]
    lmp.command("run 600")
    # drag damps the box; what is left is its last oscillation
    assert np.abs(stress(lmp)).max() < 0.1 * np.abs(before).max()
    assert np.abs(lammps._box(lmp)[0] - cell).max() > 0.3
    energy, anew = potential_energy(lmp, SMOOTH)
    assert energy == pytest.approx(anew, rel=1e-10)


def test_minimization_uses_the_energy():
    lmp = session(crystal((3, 3, 3), rattle=0.1), "pair_style none")
    lammps.attach(lmp, SMOOTH, {1: "Ar"})
    lmp.command("minimize 0 1e-4 200 400")
    assert np.abs(forces(lmp)).max() < 1e-4


def test_what_cannot_work_is_refused_before_the_run(monkeypatch):
    frame = crystal((2, 2, 2))
    with pytest.raises(ValueError, match="units real; begin the script with `units metal`"):
        lammps.attach(session(frame, units="real"), ARGON, {1: "Ar"})
    lmp = session(frame)
    with pytest.raises(ValueError, match="no element is given for LAMMPS atom type 1"):
        lammps.attach(lmp, ARGON, {2: "Ar"})
    with pytest.raises(ValueError, match="chemical symbol 'argon' is unknown"):
        lammps.attach(lmp, ARGON, {1: "argon"})
    with pytest.raises(ValueError, match="knows Ar but not Ti"):
        lammps.attach(lmp, ARGON, {1: "Ti"})
    setting = lmp.extract_setting
    monkeypatch.setattr(lmp, "extract_setting", lambda name: 4 if name == "world_size" else setting(name))
    monkeypatch.setattr(lmp, "get_mpi_comm", lambda: None)
    with pytest.raises(ImportError, match="4 MPI processes, but mpi4py is missing"):
        lammps.attach(lmp, ARGON, {1: "Ar"})
    lmp = session(frame, "fix move all npt temp 5 5 0.2 iso 0 0 1.0")
    with pytest.raises(ValueError, match="fix move controls the pressure; attach the potential first"):
        lammps.attach(lmp, ARGON, {1: "Ar"})
    empty = lammps.start("-log", "none", "-screen", "none")
    empty.command("units metal")
    with pytest.raises(ValueError, match="no atom types yet"):
        lammps.attach(empty, ARGON, {1: "Ar"})


def test_a_failure_within_a_run_stops_it_and_is_raised_by_the_run():
    lmp = session(crystal((2, 2, 2)), "pair_style none", "fix move all nve")
    lammps.attach(lmp, ARGON, {1: "Ar"})
    lmp.command("run 2")
    lmp.numpy.extract_atom("v")[0] = np.nan
    with pytest.raises(Exception, match=r"fusedff at step 3: atom \d+ \(Ar\) is not at a finite position"):
        lmp.command("run 1000")
    assert lmp.extract_global("ntimestep") < 5


def test_ctrl_c_stops_a_run(monkeypatch):
    """Python drops what is raised in a callback from C: LAMMPS went on, with the forces of the step before."""
    lmp = session(crystal((2, 2, 2)), "pair_style none", "fix move all nve")
    lammps.attach(lmp, ARGON, {1: "Ar"})
    lmp.command("run 2")

    def interrupted(*_):
        raise KeyboardInterrupt  # what Python makes of the signal

    monkeypatch.setattr(lammps.Evaluator, "__call__", interrupted)
    with pytest.raises(Exception, match="fusedff at step 2: KeyboardInterrupt"):
        lmp.command("run 1000")
    assert lmp.extract_global("ntimestep") < 5
