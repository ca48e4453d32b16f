"""Settings with which a computation would never end raise an error at once, in one sentence."""

import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from argon import FCC, argon
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from fusedff.crystallography import crystals
from fusedff.data.validation import frame_checks
from fusedff.geometry import neighbors
from fusedff.interfaces.ase import FusedCalculator
from fusedff.measurements.state_points import StatePoint
from fusedff.network.dimenet import DimeNet
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential
from fusedff.properties.thermal.config import warn_if_blocks_are_short
from fusedff.properties.thermal.elastic import ElasticConfig
from fusedff.properties.thermal.liquid import LiquidConfig
from fusedff.runtime import storage
from fusedff.simulation import cells
from fusedff.simulation.elasticity import CoupledStrains
from fusedff.simulation.langevin import LangevinConfig
from fusedff.training.config import DiffTReConfig, ForceMatchingConfig, FusedConfig


@pytest.fixture(autouse=True)
def at_once():
    start = time.perf_counter()
    yield
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        (ForceMatchingConfig, "epochs", 10**15),
        (ForceMatchingConfig, "batch", 10**9),
        (DiffTReConfig, "updates", 10**15),
        (DiffTReConfig, "replicas", 10**7),
        (ElasticConfig, "replicas", 10**7),
        (ElasticConfig, "snapshots", 10**12),
        (LiquidConfig, "replicas", 10**7),
        (LangevinConfig, "steps_per_snapshot", 10**12),
        (FusedConfig, "epochs", 10**9),
        (FusedConfig, "dft_epochs", 10**5),
        (DimeNet, "blocks", 10**6),
        (DimeNet, "embedding", 10**6),
        (DimeNet, "spherical", 10**6),
        (DimeNet, "cutoff", 1e9),
        (LennardJones, "cutoff", 1e9),
    ],
)
def test_settings_have_upper_bounds(settings, name, value):
    with pytest.raises(ValueError, match=rf"^{settings.__name__}: (epochs = 200|{name} = [\d.e+]+); give .*(most|Å)"):
        settings(**{name: value})


def test_a_model_file_that_asks_for_a_million_blocks_is_refused(tmp_path):
    huge = DimeNet()
    object.__setattr__(huge, "blocks", 10**6)
    Potential({"w": np.zeros(3, np.float32)}, huge, (22,), (-5.0,)).save(tmp_path / "huge.safetensors")
    with pytest.raises(storage.DamagedFileError, match=r"huge.safetensors .*blocks = 1000000; give 50 at most"):
        Potential.load(tmp_path / "huge.safetensors")


METRES = {
    "in metres": bulk("Ar", "fcc", a=5.27e-10, cubic=True),
    "nearly in a plane": Atoms("Ar2", [[0, 0, 0], [3, 3, 0]], cell=[[6, 0, 0], [0, 6, 0], [6, 6, 1e-9]], pbc=True),
    "flat": Atoms("Ar2", [[0, 0, 0], [3, 3, 0]], cell=[[6, 0, 0], [0, 6, 0], [0, 0, 1e-7]], pbc=True),
    "of atoms that touch": Atoms("Ar2", [[0, 0, 0], [3, 3, 0]], cell=[[6, 0, 0], [0, 6, 0], [0, 0, 0.05]], pbc=True),
    "in a plane": Atoms("Ar2", [[0, 0, 0], [3, 3, 0]], cell=[[6, 0, 0], [6, 0, 0], [0, 0, 6]], pbc=True),
}


@pytest.mark.parametrize("what", METRES)
def test_cells_of_no_height_are_refused_by_the_calculator(what):
    frame = METRES[what].copy()
    frame.calc = FusedCalculator(argon())
    with pytest.raises(ValueError, match=r"the cell is \S+ Å high, with \S+ periodic (images|atoms) within 8 Å"):
        frame.get_potential_energy()


@pytest.mark.parametrize("what", METRES)
def test_cells_of_no_height_are_refused_in_training_and_dynamics(what):
    frame = METRES[what].copy()
    frame.calc = SinglePointCalculator(frame, energy=0.0, forces=np.zeros((len(frame), 3)))
    with pytest.raises(ValueError, match=r"frame 3: (cell vectors are up to|the cell (is \S+ Å high|has no volume))"):
        frame_checks.check_frame(frame, "frame 3")
    with pytest.raises(ValueError, match=r"frame 0: (cell vectors are up to|the cell (is \S+ Å high|has no volume))"):
        cells.replicate([frame], [10.0])
    with pytest.raises(ValueError, match="Å high"):
        neighbors.image_offsets(frame.cell.array, 8.0)


def test_a_cell_of_metres_in_angstrom_is_refused():
    frame = bulk("Ar", "fcc", a=5.27e10, cubic=True)
    frame.calc = FusedCalculator(argon())
    with pytest.raises(ValueError, match=r"the cell is 5\.27e\+10 Å long; give lengths in Å"):
        frame.get_potential_energy()


def test_crystals_in_metres_are_refused_before_they_are_simulated():
    crystal = crystals.Crystal("Ar", "fcc", 5.27e-10)
    ensemble = CoupledStrains().cells([StatePoint(50.0, crystal)], (2, 2, 2))
    with pytest.raises(ValueError, match=r"the cell is 1\.0\d*e-09 Å high"):
        neighbors.search_plan(ensemble.lattice, 9.0)  # what a simulation begins with


def test_more_atoms_than_memory_holds_are_refused():
    with pytest.raises(ValueError, match=r"repeats = \(1000, 1000, 1000\) make 4e\+09 atoms"):
        crystals.supercell(FCC, (1000, 1000, 1000))
    with pytest.raises(ValueError, match="20000 cells of 4000 atoms are more than 10000000 atoms in all"):
        CoupledStrains().cells([StatePoint(50.0, FCC)], (10, 10, 10), 10_000)
    with pytest.raises(ValueError, match="10000000 cells of 4 atoms"):
        cells.replicate([crystals.unit_cell(FCC)], [50.0], 10**7)


def test_blocks_shorter_than_the_noise_is_correlated_are_a_warning():
    """Errors from ten blocks of 0.15 ps were half of the scatter between independent runs."""
    settings = ElasticConfig(langevin=LangevinConfig(2.0, 5.0, 25), snapshots=30)  # 1.5 ps
    with pytest.warns(UserWarning, match=r"blocks of 0.15 ps .*a block lasts 0.8 ps"):
        warn_if_blocks_are_short(settings)
    fine = (
        replace(settings, snapshots=48, blocks=3),
        replace(settings, langevin=LangevinConfig(2.0, 30.0, 25)),
        replace(settings, langevin=LangevinConfig(2.0, 0.0, 25)),
        replace(settings, snapshots=10, blocks=5),  # a trial
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in fine:
            warn_if_blocks_are_short(other)
