"""The commands for a material of your own, from DFT output to trained models, and for the titanium study."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from fusedff.runtime.failures import FailedComputationError
from fusedff.runtime.interrupts import interruptible


class Command(NamedTuple):
    """One command: its summary and help, its arguments, and its function, which returns the exit status."""

    summary: str
    text: str  # the rest of its help
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(arguments=None) -> int:
    # before jax is imported: see `jax_setup.enable_compilation_cache`
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without Greek letters gets ? for them
            stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(prog="fusedff", description=__doc__, epilog="fusedff COMMAND --help says more")
    parser.add_argument("--version", action="version", version=f"fusedff {version('fusedff')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sentence = f"{command.summary[0].upper()}{command.summary[1:]}."
        layout = argparse.RawDescriptionHelpFormatter
        command.arguments(
            commands.add_parser(
                name, help=command.summary, description=sentence, epilog=command.text, formatter_class=layout
            )
        )
    options = parser.parse_args(arguments)
    try:
        with interruptible():
            return COMMANDS[options.command].run(options)
    # an extra not installed, a full disk, no permission, a file in use, invalid input, a relaxation without convergence
    except (ImportError, OSError, ValueError, FailedComputationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "a training goes on from its last epoch, and labelling from its last label, with the same command"
        print(f"\ninterrupted; {goes_on}", file=sys.stderr)
        return 130


def _set_up_jax() -> None:
    """Tune JAX, before anything is compiled. Raises ValueError if JAX_PLATFORMS names a device that does not exist."""
    import fusedff
    from fusedff.runtime import devices

    devices.require_platform()
    fusedff.setup()


# ---- a material of your own ----


def _new_arguments(parser) -> None:
    parser.add_argument("folder", type=Path, help="folder for both files, created if it does not exist")


def _new(options) -> int:
    from fusedff.commands import template

    print(f"wrote {template.new(options.folder)}; fill in your settings, and the table beside it")
    return 0


def _convert_arguments(parser) -> None:
    parser.add_argument("inputs", type=Path, nargs="+", metavar="INPUT", help="files, or folders of DeePMD runs")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="extended-XYZ file to write; it must not exist")
    parser.add_argument("--format",
                        help="format of the inputs, if names and contents do not show it, e.g. vasp-out")  # fmt: skip
    parser.add_argument("--family", default="unlabelled",
                        help="family (config_type) of frames that name none, e.g. hcp-md")  # fmt: skip
    parser.add_argument("--source", help="source of frames that name none; each source has its own zero of energy "
                        "(default: vasp, espresso, ...)")  # fmt: skip
    parser.add_argument("--run-length", type=int, metavar="N",
                        help="cut trajectories, and runs that extended XYZ names, into runs of N frames")  # fmt: skip
    parser.add_argument("--species", nargs="+", action="extend", default=[], metavar="SYMBOL",
                        help="elements of types 0, 1, ... of DeePMD folders without type_map.raw")  # fmt: skip
    parser.add_argument("--labels", nargs="+", action="extend", default=[], type=_setting, metavar="LABEL=KEY",
                        help="entries of extended XYZ that are energy, forces, stress or virial, e.g. "
                        "energy=REF_energy; with energy or forces among them, no other label is taken")  # fmt: skip


def _convert(options) -> int:
    from fusedff.commands import conversion

    settings = conversion.ConversionConfig(
        options.format, options.source, options.family, options.run_length, tuple(options.species),
        _settings(options.labels, "--labels"),
    )  # fmt: skip
    done = conversion.convert(options.inputs, options.output, settings)
    print(done.report())
    print(
        f'\nwrote {options.output}; next: frames = "{options.output.name}" in a settings file beside it (`fusedff new`)'
    )
    return 0


def _label_arguments(parser) -> None:
    parser.add_argument("structures", type=Path, help="extended-XYZ file of periodic structures")
    parser.add_argument("output", type=Path, help="extended-XYZ file that labelled frames are appended to")
    parser.add_argument("--calculator", metavar="MODEL",
                        help="ASE calculator that labels the structures, instead of GPAW")  # fmt: skip
    parser.add_argument("--set", nargs="+", action="extend", default=[], type=_setting, metavar="KEY=VALUE",
                        help="settings of that calculator, e.g. sigma=2.3; true, false and none in any case, other "
                        "words are text")  # fmt: skip
    parser.add_argument("--source", help="source of the frames; each has its own zero of energy (default: MODEL)")
    gpaw = parser.add_argument_group("settings of GPAW")
    gpaw.add_argument("--processes", type=int, help="MPI processes (default: 2)")
    for name, metavar, text in (
        ("cutoff", "EV", "plane-wave cut-off (default: 500 eV)"),
        ("k-spacing", "K", "of k-points, in 1/Å with 2π, for cells of fewer than 4 atoms (default: 0.26)"),
        ("k-spacing-large", "K", "the same for larger cells (default: 0.31)"),
        ("smearing", "EV", "Methfessel-Paxton width (default: 0.2 eV)"),
        ("pulay", "EV", "Pulay correction: divided by the volume per atom and added to every pressure (default: 0)"),
    ):
        gpaw.add_argument(f"--{name}", dest=name, type=float, metavar=metavar, help=text)


def _label(options) -> int:
    from fusedff.commands import labelling

    given = {name: value for name, value in vars(options).items() if value not in (None, [])}
    gpaw = {name: given[name] for name in labelling.OF_GPAW if name in given}
    if options.calculator is None:
        if foreign := [name for name in ("set", "source") if name in given]:
            raise ValueError(f"--{foreign[0]} is for --calculator, which is not given; name one, or leave it out")
        processes = 2 if options.processes is None else options.processes
        print(labelling.plan(options.structures, options.output, processes, gpaw).report())
    else:
        if foreign := [*gpaw, *(["processes"] if "processes" in given else [])]:
            raise ValueError(f"--{foreign[0]} is a setting of GPAW, not of {options.calculator}; leave it out")
        _set_up_jax()
        found = labelling.label(
            options.structures, options.output, options.calculator, _settings(options.set), options.source,
            say=lambda text: print(text, flush=True),
        )  # fmt: skip
        print(found.report())
    print(f'next        frames = "{options.output.name}" in a settings file beside it (`fusedff new`)')
    return 0


def _propose_arguments(parser) -> None:
    parser.add_argument("frames", type=Path, help="extended-XYZ file of periodic structures, labelled or not")
    parser.add_argument("--models", nargs="+", action="extend", required=True, metavar="MODEL",
                        help="a committee of two or more")  # fmt: skip
    parser.add_argument("--count", type=int, default=20, metavar="N", help="structures to propose (default: 20)")
    parser.add_argument("--into", type=Path, required=True, metavar="OUTPUT", help="extended-XYZ file to write")
    parser.add_argument("--apart", type=float, metavar="LENGTH",
                        help="structures that differ by less (Å) are proposed once (default: 0.15)")  # fmt: skip


def _propose(options) -> int:
    from fusedff.commands import proposal

    _set_up_jax()
    apart = proposal.APART if options.apart is None else options.apart
    print(proposal.propose(options.frames, options.models, options.count, options.into, apart).report())
    print(f"wrote     {options.into}; next: fusedff label {options.into} frames.extxyz")
    return 0


def _settings_argument(parser) -> None:
    parser.add_argument("settings", type=Path, help="settings file, e.g. study.toml")


def _check(options) -> int:
    from fusedff.commands import material

    print(material.describe(material.load(options.settings)))
    return 0


def _train(options) -> int:
    from fusedff.commands import material, training
    from fusedff.study import comparison, presets

    mine = material.load(options.settings)
    print(material.describe(mine), flush=True)
    _set_up_jax()
    presets.announce(mine.preset)
    result = training.train(mine, say=lambda text: print(f"--- {text}", flush=True))
    print(f"\n{comparison.results_text(mine.preset, result)}")
    print(f"\nmodels, tables and figures: {mine.output}")
    return 0


def _evaluate_arguments(parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a potential or a calculator, see below")
    parser.add_argument("--structure", metavar="NAME|FILE",
                        help="hcp, bcc, fcc, diamond, rocksalt, ... or a POSCAR, CIF or extended-XYZ file")  # fmt: skip
    parser.add_argument("--symbol", help="chemical symbol or formula, if the structure is given by its name, e.g. Cu")
    parser.add_argument("--frames", type=Path, help="extended-XYZ file of labelled frames to compare with")
    parser.add_argument("--table", type=Path, help="measurements (as of `fusedff train`) to compare with")
    parser.add_argument("--preset", help="how long to simulate at the temperatures of --table (default: demo)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], type=_setting, metavar="KEY=VALUE",
                        help="settings of a calculator that is not of fusedff, e.g. sigma=2.3; true, false and none in "
                        "any case, other words are text")  # fmt: skip
    parser.add_argument("--output", type=Path, help="JSON file to write the numbers to; it must not exist")


def _setting(text: str):
    import ast

    key, separator, value = text.partition("=")
    if not separator or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no setting; write it like sigma=2.3 or energy=REF_energy")
    try:
        found = ast.literal_eval(value.capitalize() if value.lower() in ("true", "false", "none") else value)
    except (ValueError, SyntaxError):  # text without quotation marks
        return key, value
    if isinstance(found, tuple) and not value.startswith("("):
        raise argparse.ArgumentTypeError(
            f"{text!r} has a comma; give a decimal point, or several values in brackets, like {key}=({value})"
        )
    return key, found


def _settings(pairs, option="--set") -> dict:
    settings = dict(pairs)
    for key in settings:
        if (n := [name for name, _ in pairs].count(key)) > 1:
            raise ValueError(f"{option} gives {key} {n} times; give it once")
    return settings


def _evaluate(options) -> int:
    from fusedff.commands import evaluation
    from fusedff.runtime import storage

    if options.preset is not None and options.table is None:
        raise ValueError("--preset is for the temperatures of --table, which is not given; name one, or leave it out")
    if options.output is not None:
        storage.require_new(options.output)
    _set_up_jax()

    def keep(found):  # after each part, so that nothing is lost if a later one fails
        if options.output is not None:
            storage.write_json(options.output, found)

    evaluation.evaluate(
        options.model, options.structure, options.symbol, options.frames, options.table, options.preset or "demo",
        _settings(options.set), say=lambda text: print(text, flush=True), keep=keep,
    )  # fmt: skip
    if options.output is not None:
        print(f"\nwrote {options.output}")
    return 0


# ---- the titanium study ----


def _preset_arguments(parser) -> None:
    parser.add_argument("--preset", default="demo", help="smoke, demo, hours, full or paper (default: demo)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where results go (default: runs)")


def _run(options) -> int:
    from fusedff.study import notebooks, presets

    return notebooks.execute(presets.get(options.preset), options.runs.resolve())


def _release_arguments(parser) -> None:
    _preset_arguments(parser)
    parser.add_argument("--into", type=Path, help="folder that the models go to (default: that of the package)")
    parser.add_argument("--project", type=Path, help="the checkout whose README shows them (default: this one)")


def _release(options) -> int:
    from fusedff.commands import release
    from fusedff.data import FILES
    from fusedff.study import notebooks, run_folder

    into = options.into or FILES
    release.release(run_folder.folder(options.preset, options.runs), into)
    release.show(into, options.project or notebooks.NOTEBOOKS.parent)
    return 0


COMMANDS = {
    "new": Command(
        "write a template of a settings file and of a table of measurements", """\
example:
  fusedff new copper         # writes copper/study.toml and copper/measured.csv""",
        _new_arguments, _new,
    ),
    "convert": Command(
        "make a file of labelled frames from the output of DFT programs", """\
Reads OUTCAR, vasprun.xml, Quantum ESPRESSO (pw.x), FHI-aims, extended XYZ, trajectories of ASE, and folders of DeePMD
arrays (set.*/coord.npy) at any depth. It writes energy, forces and, if present, stress. The energy is the one whose
derivatives are the forces: with smeared occupations the free energy, not the one extrapolated to zero smearing. Steps
whose SCF cycle has not converged and repeated structures are dropped, and counted.

Every file or folder is one run, whose frames are similar and stay together in one of training, validation and test. Ten
runs or more are needed; --run-length cuts a long trajectory, and runs that extended XYZ names.

Extended XYZ from other programs may have labels under names of their own (--labels). A virial becomes a stress. If
--labels names energy or forces, labels that it does not name are left out (stress=stress takes the stress of the file).

examples:
  fusedff convert run-*/OUTCAR frames.extxyz --family hcp-rattled
  fusedff convert md/vasprun.xml md.extxyz --run-length 50
  fusedff convert deepmd_data/ frames.extxyz --species Ti Al
  fusedff convert mace.xyz frames.extxyz --labels energy=REF_energy forces=REF_forces stress=REF_stress""",
        _convert_arguments, _convert,
    ),
    "label": Command(
        "label structures with any ASE calculator, or check them and print the command for DFT labels (GPAW)", """\
With --calculator (named as for `fusedff evaluate`), structures are labelled and appended to the output, with `source`
named after the calculator. A structure that fails is skipped and reported. After an interruption, the same command
labels what is missing.

Without --calculator, labels are made with GPAW by scripts/make_dft_labels.py of a checkout, under MPI with the Python
for which GPAW is installed. This command reads the structures, checks them, and prints the command line to run.
That script can also make the structures of an elemental crystal (volumes, strains, displaced atoms): --element in its
--help.

examples:
  fusedff label structures.extxyz chgnet.extxyz --calculator chgnet
  fusedff label structures.extxyz lj.extxyz --calculator lj --set sigma=3.4 epsilon=0.0104 rc=10
  fusedff label structures.extxyz frames.extxyz --processes 4 --cutoff 700 --k-spacing-large 0.8""",
        _label_arguments, _label,
    ),
    "propose": Command(
        "choose the structures for which the forces of several potentials differ most, to be labelled next", """\
Potentials from trainings with different seeds (seeds = 5 in study.toml) agree on structures that their training frames
determine. Others, of a trajectory for example, should be labelled next. Of similar structures only one is proposed.

example:
  fusedff propose md.extxyz --models models/seed-*/fused/potential.safetensors --count 20 --into next.extxyz""",
        _propose_arguments, _propose,
    ),
    "check": Command(
        "read a settings file, its frames and its measurements, and print what would be trained on", """\
example:
  fusedff check copper/study.toml""",
        _settings_argument, _check,
    ),
    "train": Command(
        "train three models of your own material and evaluate them; resumes an interrupted training", """\
After an interruption, the same command resumes at the last epoch.

example:
  fusedff train copper/study.toml""",
        _settings_argument, _train,
    ),
    "evaluate": Command(
        "compute properties of a crystal with a potential or any ASE calculator, and errors on frames", """\
MODEL is a file of a trained potential (.safetensors), one that ships (titanium-dft, titanium-experiment,
titanium-fused), a calculator that is installed (emt, lj, chgnet, mace_mp, sevennet), or module:factory of any other.

For a crystal at rest: lattice parameters, volume, energy and bulk modulus from the energy-volume curve, elastic
constants (of any symmetry; ions relaxed, and clamped), energies of hcp, bcc and fcc for an element in one of them,
optical phonons at the zone centre, and measured values where they are known. With --frames also errors on labelled
frames. For potentials of fusedff, --table adds elastic constants and pressure at its temperatures, from molecular
dynamics (minutes).

examples:
  fusedff evaluate titanium-fused --output titanium-fused.json
  fusedff evaluate copper/models/fused/potential.safetensors --structure fcc --symbol Cu --table copper/measured.csv
  fusedff evaluate chgnet --structure POSCAR --frames frames.extxyz
  fusedff evaluate lj --structure fcc --symbol Ar --set sigma=3.4 epsilon=0.0104 rc=10""",
        _evaluate_arguments, _evaluate,
    ),
    "run": Command(
        "train and compare the three titanium models: execute the notebooks", """\
example, in a checkout of the project:
  fusedff run --preset smoke   # minutes; only shows that everything works""",
        _preset_arguments, _run,
    ),
    "release": Command(
        "make the models of a finished run those that ship with fusedff", """\
example, in a checkout of the project:
  fusedff release --preset hours""",
        _release_arguments, _release,
    ),
}  # fmt: skip
