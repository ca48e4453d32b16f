"""Presets: complete, storable, and in agreement with the titanium paper."""

import json

import pytest

from fusedff.network.dimenet import DimeNet
from fusedff.simulation.elasticity import StressFluctuation
from fusedff.study import presets
from fusedff.training.config import ForceMatchingConfig
from fusedff.training.optimizers import Adam
from fusedff.units import KJ_MOL, NM

NAMES = ("smoke", "demo", "full", "paper")


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_plain_data_and_says_which_classes_it_is_made_of(name):
    data = json.loads(json.dumps(presets.as_dict(presets.get(name))))
    assert data["kind"] == "Preset"
    assert data["name"] == name
    assert data["network"]["kind"] == "DimeNet"
    assert data["experiment"]["sampling"]["langevin"]["kind"] == "Langevin"
    assert data["experiment"]["estimator"]["kind"] in ("CoupledStrains", "StressFluctuation")


def test_a_seed_gives_all_random_numbers_and_others_to_what_judges_a_training():
    seeded = presets.with_seed(presets.get("demo"), 7)
    assert {
        seeded.seed,
        seeded.dft.seed,
        seeded.experiment.seed,
        seeded.fused.dft.seed,
        seeded.fused.experiment.seed,
    } == {7}
    checks = seeded.checks
    assert {seeded.evaluation.seed, checks.elastic.seed, checks.lattice.seed, checks.liquid.seed} == {8}


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(ValueError, match="'huge' is unknown; use one of smoke, demo, hours, full, paper"):
        presets.get("huge")


def test_the_four_training_temperatures_of_the_paper_are_in_every_preset():
    assert {presets.get(name).train_temperatures for name in NAMES} == {(23, 323, 623, 923)}


def test_the_paper_preset_is_what_the_paper_says():
    paper = presets.get("paper")
    assert paper.network == DimeNet(cutoff=5.0, embedding=32, blocks=4, radial=6, spherical=7)  # Methods, DimeNet++
    dft, experiment, fused = paper.dft, paper.experiment, paper.fused
    assert (dft.epochs, dft.batch, dft.learning_rate) == (400, 30, 1e-3)
    assert dft.final_learning_rate == pytest.approx(0.01 * dft.learning_rate)
    assert (fused.dft.learning_rate, fused.dft.final_learning_rate) == (5e-7, pytest.approx(5e-9))
    assert experiment.updates == 200
    assert experiment.optimizer == Adam(learning_rate=2e-4, final_learning_rate=2e-5, b1=0.1, b2=0.4)
    assert isinstance(experiment.estimator, StressFluctuation)
    assert experiment.repeats == (5, 5, 3)
    sampling, md = experiment.sampling, experiment.sampling.langevin
    assert (md.timestep_fs, md.friction_per_ps) == (0.5, 4.0)
    snapshot = md.timestep_fs * md.steps_per_snapshot / 1000  # ps
    assert snapshot == pytest.approx(0.1)
    assert sampling.first_equilibration * snapshot == pytest.approx(10)
    assert sampling.snapshots * snapshot == pytest.approx(70)
    assert fused.order == ("experiment", "dft")
    assert (fused.experiment_updates, fused.dft_epochs) == (1, 1)


def test_default_loss_weights_are_those_of_the_paper_in_other_units():
    """The paper: U 1e-6, F 1e-2, virial 4e-6 on squared errors in kJ/mol and nm, of cells of 256 atoms."""
    atoms = 256
    energy = 1e-6 * (atoms / KJ_MOL) ** 2  # per (eV/atom)^2
    force = 1e-2 * (NM / KJ_MOL) ** 2  # per (eV/Å)^2
    virial = 4e-6 * (atoms / KJ_MOL) ** 2  # per (eV/atom)^2
    defaults = ForceMatchingConfig()
    assert defaults.force_weight == 1.0
    assert defaults.energy_weight == pytest.approx(energy / force, rel=0.01)
    assert defaults.virial_weight == pytest.approx(virial / force, rel=0.01)


def test_the_ratio_of_pressure_to_elastic_weight_is_that_of_the_paper():
    experiment = presets.get("paper").experiment
    assert experiment.pressure_weight / experiment.elastic_weight == pytest.approx(1e-9 / 1e-10)


def test_time_steps_follow_the_square_root_of_the_lightest_mass_and_are_never_lengthened():
    def steps(preset):
        training, fused = preset.experiment.sampling.langevin, preset.fused.experiment.sampling.langevin
        return [langevin.timestep_fs for langevin in (training, fused, preset.evaluation.langevin)]

    demo = presets.get("demo")
    assert steps(demo) == [8.0] * 3
    assert steps(presets.for_lightest(demo, presets.TITANIUM_MASS / 4)) == [4.0] * 3
    assert steps(presets.for_lightest(demo, 183.84)) == [8.0] * 3
    assert steps(presets.for_lightest(presets.get("smoke"), 1e-9)) == [0.1] * 3
