"""Settings of a whole run, in five sizes: smoke, demo, hours, full, paper."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from fusedff.network.dimenet import DimeNet
from fusedff.properties.thermal.elastic import ElasticConfig
from fusedff.properties.thermal.lattice import LatticeConfig
from fusedff.properties.thermal.liquid import LiquidConfig
from fusedff.runtime import limits
from fusedff.simulation.elasticity import StressFluctuation
from fusedff.simulation.langevin import LangevinConfig
from fusedff.training.config import DiffTReConfig, ForceMatchingConfig, FusedConfig, SamplingConfig
from fusedff.training.optimizers import Adam, GaussNewton

TITANIUM_MASS = 47.867  # u
DATA = ("embedded", "embedded+vasp", "paper")  # the DFT frames of a preset, see comparison.frames


@dataclass(frozen=True)
class Checks:
    """Settings of the calculations in notebooks 07 and 08."""

    temperatures: tuple[float, ...]  # K, of the elastic constants; none means all that were measured
    elastic: ElasticConfig
    lattice_temperatures: tuple[float, ...]  # K
    lattice: LatticeConfig
    liquid: LiquidConfig
    liquid_repeats: tuple[int, int, int]  # of the bcc cube it is melted from
    langevin: LangevinConfig  # of hot bcc
    bcc_repeats: tuple[int, int, int]
    bcc_equilibration: int  # snapshots
    bcc_snapshots: int
    phonon_repeats: tuple[int, int, int] = (4, 4, 3)
    vacancy_repeats: tuple[int, int, int] = (4, 4, 3)
    volumes: int = 9  # of energy-volume curves


@dataclass(frozen=True)
class Preset:
    """Settings of the three models, of their evaluation and of further checks."""

    name: str
    data: str  # where the DFT frames come from, one of DATA
    train_temperatures: tuple[float, ...]  # K, of the measured state points that are trained on
    network: DimeNet
    dft: ForceMatchingConfig
    experiment: DiffTReConfig
    fused: FusedConfig
    evaluation: ElasticConfig
    checks: Checks
    adiabatic: bool = True  # measured constants as what they are; else they count as isothermal, as in the paper
    energy_scale: float = 1.0  # eV, unit of the network's output
    seed: int = 0
    shipped: tuple[str, ...] = ()  # models that later notebooks take from those that ship: training here makes none

    def __post_init__(self):
        limits.one_of(self, "data", DATA)


_SMALL = DimeNet(
    embedding=16, blocks=2, radial=6, spherical=4, interaction=8, basis=8, type_embedding=8, output=32, output_layers=1,
    layers_before_skip=1, layers_after_skip=1,
)  # fmt: skip
# What tells elastic constants soonest (`python -m benchmarks noise`): long steps, whose bias is too small to see, and
# frequent snapshots, which cost nothing where no second derivatives are taken.
_DEMO_MD = LangevinConfig(timestep_fs=8.0, friction_per_ps=10.0, steps_per_snapshot=5)
# So few frames are soon overfitted: with 100 epochs the errors on held-out frames are no smaller, with 400 those of
# forces are a third larger. Without `force_scale`, a few compressed crystals decide what is learned: forces on held-out
# frames are a quarter worse.
_DEMO_DFT = ForceMatchingConfig(
    epochs=60,
    batch=8,
    optimizer="muon",
    learning_rate=5e-3,
    final_learning_rate=1e-4,
    energy_weight=10.0,
    virial_weight=5.0,
    force_scale=1.0,
)
# Gauss-Newton: a tenth of Adam's updates. New snapshots in each: those kept for several would teach their noise. With
# derivatives at a quarter of them an update takes less than half the time, and the losses fall alike.
_DEMO_EXPERIMENT = DiffTReConfig(
    updates=6, optimizer=GaussNewton(0.6, 0.2, jacobian_every=4), stress_weight=100.0, repeats=(3, 3, 2),
    sampling=SamplingConfig(_DEMO_MD, first_equilibration=20, equilibration=2, snapshots=20, reuse_above=1.0),
)  # fmt: skip

# Little weight on DFT's stress labels, which contradict the measured stress of the crystal. The learning rate of DFT
# ends near zero, so that the last updates from the experiment meet their targets.
_BESIDE_EXPERIMENT = {
    "optimizer": "adam", "learning_rate": 2e-5, "final_learning_rate": 2e-7, "virial_weight": 0.5
}  # fmt: skip
_DEMO_EVALUATION = ElasticConfig(
    repeats=(3, 3, 2), replicas=1, langevin=_DEMO_MD, equilibration=25, snapshots=80, blocks=8
)  # blocks of 0.4 ps, four damping times
_DEMO_HOT_MD = LangevinConfig(timestep_fs=4.0, friction_per_ps=10.0, steps_per_snapshot=12)  # bcc breaks with 8 fs
_DEMO_CHECKS = Checks(
    temperatures=(173, 473, 773, 923),  # as many as in the evaluation: the same compiled program
    elastic=replace(_DEMO_EVALUATION, snapshots=60, blocks=6),
    lattice_temperatures=(23, 473, 923),
    lattice=LatticeConfig(
        repeats=(3, 3, 2), replicas=1, langevin=_DEMO_MD, passes=2, equilibration=25, approach=25, snapshots=60,
        blocks=6,
    ),
    liquid=LiquidConfig(
        replicas=2, langevin=_DEMO_HOT_MD, melting_factor=1.6, melting=20, equilibration=40, snapshots=70,
        friction_per_ps=0.5, diffusive_ps=(0.4, 1.6),
    ),
    liquid_repeats=(3, 3, 3),
    langevin=_DEMO_HOT_MD,
    bcc_repeats=(3, 3, 3),
    bcc_equilibration=20,
    bcc_snapshots=40,
)  # fmt: skip

DEMO = Preset(
    name="demo",
    data="embedded",
    train_temperatures=(23, 323, 623, 923),
    network=_SMALL,
    dft=_DEMO_DFT,
    experiment=_DEMO_EXPERIMENT,
    fused=FusedConfig(
        epochs=10,
        dft_epochs=3,
        order=("dft", "experiment"),  # the experiment has the last word
        experiment=_DEMO_EXPERIMENT,
        dft=replace(_DEMO_DFT, **_BESIDE_EXPERIMENT),
    ),
    evaluation=_DEMO_EVALUATION,
    checks=_DEMO_CHECKS,
)

# Frames of two sources, and cells of 96 atoms, in which the constants at 923 K are within a per cent of those in larger
# ones. The frames of the second source are steps of 2 fs, nearly alike: one in three comes in an epoch. Many small
# batches and a network of 39 thousand parameters learn faster than what `demo` has, for the same time.
_WIDE = replace(_SMALL, embedding=32, interaction=16, output=64)
_HOURS_DFT = ForceMatchingConfig(
    epochs=160, batch_atoms=112, optimizer="muon", learning_rate=3e-3, final_learning_rate=6e-5, energy_weight=30.0,
    virial_weight=5.0, source_weights=(("gpaw", 2.0), ("vasp", 1 / 3)), force_scale=1.0, ema=0.999, clip=10.0,
)  # fmt: skip
_HOURS_EXPERIMENT = replace(
    _DEMO_EXPERIMENT, updates=16, optimizer=GaussNewton(0.6, 0.1, jacobian_every=4), repeats=(4, 4, 3),
    sampling=replace(_DEMO_EXPERIMENT.sampling, snapshots=18),
)  # fmt: skip
# More rounds average more noise: less damping. Not where steps spare what the labels taught: there, all deviations
# answer about equally well, and less of it only lets in noise.
_ALONE = {"optimizer": replace(_HOURS_EXPERIMENT.optimizer, damping=0.001)}

_HOURS_HOT_MD = LangevinConfig(timestep_fs=2.0, friction_per_ps=10.0, steps_per_snapshot=25)
_HOURS_EVALUATION = replace(_DEMO_EVALUATION, repeats=_HOURS_EXPERIMENT.repeats, blocks=10)

HOURS = replace(
    DEMO,
    name="hours",
    data="embedded+vasp",
    network=_WIDE,
    dft=_HOURS_DFT,
    experiment=replace(_HOURS_EXPERIMENT, **_ALONE),
    fused=replace(
        DEMO.fused,
        epochs=24,
        dft_epochs=1,  # of a thousand frames
        experiment=replace(_HOURS_EXPERIMENT, optimizer=replace(_HOURS_EXPERIMENT.optimizer, final_relaxation=0.15)),
        dft=replace(_HOURS_DFT, **_BESIDE_EXPERIMENT, ema=0.0, clip=None),
    ),
    evaluation=replace(_HOURS_EVALUATION, snapshots=300),
    checks=replace(
        _DEMO_CHECKS,
        temperatures=(),
        elastic=_HOURS_EVALUATION,
        lattice_temperatures=(23, 173, 323, 623, 923),
        lattice=replace(_DEMO_CHECKS.lattice, repeats=(3, 3, 3), snapshots=100, blocks=10),
        liquid=replace(_DEMO_CHECKS.liquid, langevin=_HOURS_HOT_MD, snapshots=200, diffusive_ps=(0.5, 3.0)),
        langevin=_HOURS_HOT_MD,
        bcc_snapshots=80,
    ),
)

_SMOKE_MD = LangevinConfig(timestep_fs=2.0, friction_per_ps=10.0, steps_per_snapshot=4)
_SMOKE_EXPERIMENT = DiffTReConfig(
    updates=2, optimizer=GaussNewton(relaxation=1e-3, final_relaxation=1e-3), repeats=(2, 2, 1),
    sampling=SamplingConfig(_SMOKE_MD, first_equilibration=2, equilibration=1, snapshots=5),
)  # fmt: skip
_SMOKE_EVALUATION = ElasticConfig(
    repeats=(2, 2, 1), replicas=1, langevin=_SMOKE_MD, equilibration=2, snapshots=10, blocks=5
)
_SMOKE_HOT_MD = LangevinConfig(timestep_fs=2.0, friction_per_ps=10.0, steps_per_snapshot=5)
_SMOKE_CHECKS = replace(
    _DEMO_CHECKS,
    temperatures=(323, 473),
    elastic=_SMOKE_EVALUATION,
    lattice_temperatures=(323, 623),
    lattice=LatticeConfig(
        repeats=(2, 2, 1), replicas=1, langevin=_SMOKE_MD, passes=1, equilibration=2, snapshots=10, blocks=5
    ),
    liquid=replace(
        _DEMO_CHECKS.liquid,
        langevin=replace(_SMOKE_HOT_MD, timestep_fs=4.0),
        melting=40,
        equilibration=5,
        snapshots=20,
        diffusive_ps=(0.05, 0.15),
    ),
    langevin=_SMOKE_HOT_MD,
    bcc_repeats=(2, 2, 2),
    bcc_equilibration=10,
    bcc_snapshots=20,
    phonon_repeats=(2, 2, 2),
    vacancy_repeats=(2, 2, 2),
    volumes=5,
)
_SMOKE_DFT = ForceMatchingConfig(epochs=3, batch=20, learning_rate=1e-2, final_learning_rate=1e-3, energy_weight=100.0)

SMOKE = Preset(
    name="smoke",
    data="embedded",
    train_temperatures=(23, 323, 623, 923),
    network=DimeNet(
        embedding=8,
        blocks=1,
        radial=4,
        spherical=3,
        interaction=4,
        basis=4,
        type_embedding=4,
        output=8,
        output_layers=1,
        layers_before_skip=0,
        layers_after_skip=1,
    ),  # fmt: skip
    dft=_SMOKE_DFT,
    experiment=_SMOKE_EXPERIMENT,
    fused=FusedConfig(
        epochs=2,
        # by Adam, so that both optimizers are run
        experiment=replace(_SMOKE_EXPERIMENT, optimizer=Adam(1e-4, 1e-5)),
        dft=replace(_SMOKE_DFT, learning_rate=1e-3, final_learning_rate=1e-4),
    ),
    evaluation=_SMOKE_EVALUATION,
    checks=_SMOKE_CHECKS,
    shipped=("dft",),
)

_FULL_MD = replace(_DEMO_MD, steps_per_snapshot=10)
_FULL_HOT_MD = LangevinConfig(timestep_fs=2.0, friction_per_ps=4.0, steps_per_snapshot=50)
_FULL_EXPERIMENT = replace(
    _HOURS_EXPERIMENT, updates=24, repeats=(5, 5, 3), replicas=8,
    sampling=SamplingConfig(_FULL_MD, first_equilibration=100, equilibration=10, snapshots=100, reuse_above=1.0),
)  # fmt: skip
_FULL_DFT = replace(_DEMO_DFT, epochs=200, final_learning_rate=1e-5)

_FULL_EVALUATION = ElasticConfig(repeats=(5, 5, 3), replicas=8, langevin=_FULL_MD, snapshots=700)
_FULL_CHECKS = Checks(
    temperatures=(),
    elastic=_FULL_EVALUATION,
    lattice_temperatures=(23, 123, 223, 323, 423, 523, 623, 723, 823, 923),
    lattice=LatticeConfig(langevin=_FULL_MD),
    liquid=LiquidConfig(replicas=8, langevin=_FULL_HOT_MD, snapshots=400),
    liquid_repeats=(5, 5, 5),
    langevin=_FULL_HOT_MD,
    bcc_repeats=(5, 5, 5),
    bcc_equilibration=50,
    bcc_snapshots=400,
)

FULL = Preset(
    name="full",
    data="embedded",
    train_temperatures=(23, 323, 623, 923),
    network=DimeNet(),
    dft=_FULL_DFT,
    experiment=replace(_FULL_EXPERIMENT, **_ALONE),
    fused=replace(
        DEMO.fused,
        epochs=40,
        dft_epochs=5,
        experiment=_FULL_EXPERIMENT,
        dft=replace(_FULL_DFT, **_BESIDE_EXPERIMENT),
    ),
    evaluation=_FULL_EVALUATION,
    checks=_FULL_CHECKS,
)

# Weights of the paper in its units (kJ/mol, nm): U 1e-6 per 256-atom cell, F 1e-2, virial 4e-6; elastic 1e-10, pressure
# 1e-9. Per atom and in eV and Å, with the force weight set to one, they are the defaults of the settings classes.
_PAPER_EXPERIMENT = DiffTReConfig(estimator=StressFluctuation(), stress_weight=0.0, pressure_weight=10.0)

PAPER = Preset(
    name="paper",
    data="paper",
    train_temperatures=(23, 323, 623, 923),
    adiabatic=False,
    network=DimeNet(),
    dft=ForceMatchingConfig(),
    experiment=_PAPER_EXPERIMENT,
    fused=FusedConfig(experiment=_PAPER_EXPERIMENT),
    evaluation=ElasticConfig(estimator=StressFluctuation(), replicas=1),
    checks=_FULL_CHECKS,
)

_PRESETS = {preset.name: preset for preset in (SMOKE, DEMO, HOURS, FULL, PAPER)}


def get(name: str) -> Preset:
    """The preset of that name; ValueError lists the names there are."""
    if name not in _PRESETS:
        raise ValueError(f"preset {name!r} is unknown; use one of {', '.join(_PRESETS)}")
    return _PRESETS[name]


def with_simulations(preset: Preset, change: Callable) -> Preset:
    """The preset with `change` applied to the settings of both trainings on measurements and of the evaluation."""
    return replace(
        preset,
        experiment=change(preset.experiment),
        fused=replace(preset.fused, experiment=change(preset.fused.experiment)),
        evaluation=change(preset.evaluation),
    )


def with_seed(preset: Preset, seed: int) -> Preset:
    """The preset with all its random numbers from `seed`: initial weights, batches, trajectories, evaluation, checks.

    The trajectories of the evaluation and of the checks differ from those of the training.
    """
    seeded = with_simulations(preset, partial(replace, seed=seed))
    return replace(
        seeded,
        dft=replace(seeded.dft, seed=seed),
        fused=replace(seeded.fused, dft=replace(seeded.fused.dft, seed=seed)),
        evaluation=replace(seeded.evaluation, seed=seed + 1),
        checks=replace(
            preset.checks,
            elastic=replace(preset.checks.elastic, seed=seed + 1),
            lattice=replace(preset.checks.lattice, seed=seed + 1),
            liquid=replace(preset.checks.liquid, seed=seed + 1),
        ),
        seed=seed,
    )


def for_lightest(preset: Preset, mass: float) -> Preset:
    """The preset with the time steps of training and evaluation for atoms as light as `mass` (u).

    At equal stiffness an atom vibrates faster with the inverse square root of its mass, and the steps of the presets
    are titanium's. They are shortened in that proportion, to a tenth of a femtosecond, and never lengthened: the forces
    on heavier atoms may well be stiffer.
    """
    share = min(1.0, (mass / TITANIUM_MASS) ** 0.5)

    def shortened(settings):
        if isinstance(settings, DiffTReConfig):
            return replace(settings, sampling=shortened(settings.sampling))
        step = max(0.1, round(share * settings.langevin.timestep_fs, 1))
        return replace(settings, langevin=replace(settings.langevin, timestep_fs=step))

    return with_simulations(preset, shortened)


def note(preset: Preset) -> str | None:
    """The warning that results of `smoke` mean nothing, to be shown with them; None for other presets."""
    if preset.name != SMOKE.name:
        return None
    return "smoke: only shows that everything runs; its models and numbers mean nothing"


def announce(preset: Preset) -> None:
    """Print the `note` of a preset, if it has one."""
    if said := note(preset):
        print(f"*** {said} ***", flush=True)


def as_dict(settings):
    """Any settings as plain data for JSON; nested settings have a `kind`, their class without 'Config'."""
    if dataclasses.is_dataclass(settings):
        fields = {f.name: as_dict(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
        return {"kind": type(settings).__name__.removesuffix("Config"), **fields}
    return list(settings) if isinstance(settings, tuple) else settings
