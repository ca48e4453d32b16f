"""Measured state points, read from a table: temperature, crystal, elastic constants and pressure.

A table is CSV with `#` comments and the columns temperature_K, the lattice parameters that the symmetry of the crystal
leaves free (of a_A, b_A, c_A, alpha_deg, beta_deg, gamma_deg; cubic: a_A alone, or density_g_cm3 in its place), and
what was measured of the elastic constants of its class in standard axes (`crystallography.orientation`): `<name>_GPa`,
with standard errors in `<name>_stderr_GPa`. Optional are pressure_GPa (0 where absent), role (`train` or `held-out`;
`train` where absent) and condition: `adiabatic` (ultrasound) or `isothermal` (where absent), see `adiabatic`. Cells are
empty for what was not measured and for unknown errors. A row without constants says at which lattice parameters the
pressure is known. Constants under pressure are slopes of stress against strain, as ultrasound measures them;
`StatePoint` holds those in Lagrangian strain, as simulations give them (see `elastic_symmetry.PRESSURE_CORRECTION`).
"""

import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import ase
import numpy as np
from ase.formula import Formula

from fusedff.crystallography import crystals, elastic_symmetry, orientation
from fusedff.crystallography.crystals import PARAMETERS, Crystal
from fusedff.data import FILES
from fusedff.data.validation import unit_checks
from fusedff.measurements import csv, curves, state_points
from fusedff.measurements.state_points import StatePoint
from fusedff.units import G_CM3, GPA, MAX_DENSITY, PER_GPA

TITANIUM_TABLE = FILES / "titanium_experiment.csv"
ALUMINIUM_TABLE = FILES / "aluminium_experiment.csv"
MAX_TEMPERATURE = 10_000.0  # K
CLOSEST_ROWS = 0.01  # K; temperatures that are closer are one
MAX_PRESSURE_GPA = 1_000.0
EINSTEIN = 200.0  # K, a typical temperature of the oscillators of a crystal
STRONGEST_TENSION = -0.1  # of C11: stretched crystals break
LONGITUDINAL = ("C11", "C22", "C33")
MAX_EXPANSION = 0.15  # of edges, against the structure a table is about, and of radians for angles
DENSITY = "density_g_cm3"
COLUMNS = {name: f"{name}_{'A' if name in 'abc' else 'deg'}" for name in PARAMETERS}


def load_state_points(
    path=None, symbol: str | None = None, structure: str | Path | ase.Atoms | Crystal = "hcp", units: str | None = None
) -> tuple[StatePoint, ...]:
    """State points of a table in its order; the default is the titanium table of the paper (22 temperatures).

    `symbol` and `structure` say which crystal the table is about: 'Ti' and one of `crystals.STRUCTURES`, or a structure
    alone, as a file or in memory (`crystals.from_structure`), whose lattice parameters are about those of the table.
    `units`, one of `PER_GPA`, says in which unit the constants are, whatever the header and their magnitude say.
    Raises FileNotFoundError, or ValueError naming file, line and remedy for a table that cannot be right: columns
    unknown, missing or repeated, text for numbers, repeated temperatures, lattice parameters that are not those of the
    structure, constants in another unit or elastically unstable. Warns of constants that may be in another unit, and of
    rows that are off the smooth curve through the other ones.
    """
    path = TITANIUM_TABLE if path is None else Path(path)
    reference = crystal_of("Ti" if symbol is None and path == TITANIUM_TABLE else symbol, structure)
    if units is not None and units not in PER_GPA:
        raise ValueError(f"units {units!r} are unknown; use one of {', '.join(PER_GPA)}")
    rows = csv.read_rows(path)
    _check_header(rows[0], reference, path.name)
    points, line_of = [], {}
    for line, row in rows[1:]:
        where = f"{path.name}, line {line}"
        point = _state_point(csv.cells(rows[0][1], row, where), reference, units, where)
        for temperature, other in line_of.items():
            if abs(temperature - point.temperature) < CLOSEST_ROWS:
                raise ValueError(f"{where}: {point.temperature:g} K is on line {other} too; keep one")
        line_of[point.temperature] = line
        points.append(point)
    if not points:
        raise ValueError(f"{path.name} has no rows; give at least one measured temperature")
    _warn_of_rows_off_curve(points, list(line_of.values()), path.name)
    return tuple(points)


def crystal_of(symbol: str | None, structure) -> Crystal:
    """The crystal that a table describes: that of a file, or for a name alone one with edges of 1 Å.

    Raises what `crystals.from_structure` raises, and ValueError for another `symbol` than that of the file, and for a
    name without a symbol.
    """
    if isinstance(structure, str) and (structure in crystals.STRUCTURES or not Path(structure).is_file()):
        edges = {"a": 1.0} | ({"c": np.sqrt(8 / 3)} if structure == "hcp" else {})
        if symbol is None:
            raise ValueError(f"{structure} of what? Give a chemical symbol, e.g. symbol='Ti'")
        return Crystal(symbol, structure, **edges)
    reference = crystals.from_structure(structure)
    if symbol is not None and not _same_compound(symbol, reference.symbol):
        raise ValueError(f"the structure is of {reference.symbol}, not {symbol}; leave out `symbol`")
    return reference


def _same_compound(one: str, other: str) -> bool:
    """Whether two formulas are of one compound, such as Ni3Al and AlNi3."""
    try:
        return Formula(one).reduce()[0] == Formula(other).reduce()[0]  # whatever their order
    except ValueError:
        return False


def _check_header(header, reference: Crystal, file: str) -> None:
    line, columns = header
    lattice = [DENSITY] if _by_density(columns, reference) else [COLUMNS[name] for name in reference.parameters]
    required = ["temperature_K", *lattice]
    names = elastic_symmetry.elastic_names(crystals.symmetry(reference))
    optional = [
        *(f"{name}{kind}_GPa" for kind in ("", "_stderr") for name in names),
        "pressure_GPa",
        "role",
        "condition",
    ]
    layout = f"{', '.join(required)}, what was measured of {', '.join(f'{n}_GPa' for n in names)}"
    for problem, found in (
        ("repeated", sorted({c for c in columns if columns.count(c) > 1})),
        ("unknown", [c for c in columns if c not in (*required, *optional)]),
        ("missing", [c for c in required if c not in columns]),
    ):
        if found:
            raise ValueError(
                f"{file}, line {line}: {problem} column {', '.join(map(repr, found))}; a table for "
                f"{reference.structure} has {layout}, and optionally errors (C11_stderr_GPa), pressure_GPa, role, "
                f"condition; what else there is to say belongs in lines that begin with #{_nearly_symmetric(reference)}"
            )


def _nearly_symmetric(crystal: Crystal) -> str:
    """A hint at the symmetry that a structure read from a file would have if its atoms moved by 0.05 Å; else ''."""
    if isinstance(crystal.structure, str):
        return ""
    try:
        nearly = orientation.conventional(crystals.unit_cell(crystal), 0.05).space_group
    except ValueError:  # no cell fits the symmetry that spglib finds
        return ""
    if nearly == crystal.structure.space_group:
        return ""
    return f". To within 0.05 Å the structure has the symmetry {nearly}; if that is right, relax it or round its sites"


def _state_point(cells, reference: Crystal, units: str | None, where: str) -> StatePoint:
    temperature = csv.positive(cells["temperature_K"], "temperature_K", where)
    if temperature > MAX_TEMPERATURE:
        raise ValueError(f"{where}: temperature_K is {temperature:g}, where no crystal is left; give Kelvin")
    crystal = _crystal(reference, _lattice(cells, reference, where), where)
    elastic_gpa, stderr = _elastic_gpa(cells, crystal, units, where)
    pressure = csv.number(cells.get("pressure_GPa", "") or "0", "pressure_GPa", where)
    if abs(pressure) > MAX_PRESSURE_GPA:
        raise ValueError(f"{where}: pressure_GPa is {pressure:g}; give GPa (1 GPa = 1e9 Pa = 1e4 bar = 10 kbar)")
    for name in LONGITUDINAL:
        if (
            name in elastic_gpa
            and not STRONGEST_TENSION < pressure / elastic_gpa[name] < state_points.STIFFEST_PRESSURE
        ):
            raise ValueError(
                f"{where}: pressure_GPa is {pressure:g} where {name} is {elastic_gpa[name]:g}, which no crystal bears; "
                "give GPa (10 kbar), positive in compression"
            )
    role = _one_of(cells, "role", state_points.ROLES, where)
    added = elastic_symmetry.reduce_stiffness(elastic_symmetry.PRESSURE_CORRECTION, crystals.symmetry(crystal))
    return StatePoint(
        temperature=temperature,
        crystal=crystal,
        elastic={name: (value - pressure * float(added[name])) * GPA for name, value in elastic_gpa.items()},
        pressure=pressure * GPA,
        role=role,
        elastic_stderr={name: value * GPA for name, value in stderr.items()},
        condition=_one_of(cells, "condition", state_points.CONDITIONS, where),
    )


def _by_density(columns, reference: Crystal) -> bool:
    """Whether a table gives the density, which is as much as the edge of a cubic crystal, instead of it."""
    return DENSITY in columns and COLUMNS["a"] not in columns and list(reference.parameters) == ["a"]


def _lattice(cells, reference: Crystal, where: str) -> dict[str, float]:
    if not _by_density(cells, reference):
        return {x: csv.positive(cells[COLUMNS[x]], COLUMNS[x], where) for x in reference.parameters}
    density = csv.positive(cells[DENSITY], DENSITY, where)
    if density > MAX_DENSITY:
        raise ValueError(f"{where}: {DENSITY} is {density:g}; give g/cm^3 (1 g/cm^3 = 1000 kg/m^3)")
    return {"a": float((crystals.unit_cell(reference).get_masses().sum() / (density * G_CM3)) ** (1 / 3))}


def _one_of(cells, column: str, known, where: str) -> str:
    """The entry of an optional column of words, the first of `known` where it is empty."""
    word = cells.get(column, "") or known[0]
    if word not in known:
        raise ValueError(f"{where}: {column} {word!r} is unknown; use one of {', '.join(known)}")
    return word


def _crystal(reference: Crystal, lattice, where: str) -> Crystal:
    try:
        crystal = replace(reference, **lattice)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    cell = crystals.unit_cell(crystal)
    unit = unit_checks.length_unit(unit_checks.closest(cell)[1], cell.numbers)
    named = isinstance(crystal.structure, str)
    if unit or (named and not 1.5 < crystal.a < 20.0):
        raise ValueError(
            f"{where}: a = {crystal.a:g} is no lattice constant in Å; " + (f"it looks {unit}" if unit else "give Å")
        )
    if crystal.structure == "hcp" and not 1.3 < (ratio := crystal.c / crystal.a) < 2.2:
        raise ValueError(f"{where}: c/a = {ratio:.3f} is not hcp; check that a_A and c_A are not swapped")
    if not named:
        for name, value in lattice.items():
            expected = reference.parameters[name]
            off = value / expected - 1 if name in "abc" else np.radians(value - expected)
            if abs(off) > MAX_EXPANSION:
                turned = crystals.symmetry(crystal).startswith("tetragonal") and abs(value / expected - 2**0.5) < 0.1
                remedy = (
                    "its conventional cell is turned by 45 degrees against yours: divide a by the square root of 2 and "
                    "convert C11, C12 and C66 to the turned axes"
                    if turned
                    else "check the order of the columns, and that they describe the conventional cell of the structure"
                )
                raise ValueError(
                    f"{where}: {COLUMNS[name]} is {value:g} where the structure has {expected:.5g}; {remedy}"
                )
    return crystal


def _elastic_gpa(cells, crystal: Crystal, units: str | None, where: str) -> tuple[dict, dict]:
    """Elastic constants and their standard errors in GPa, by name."""
    symmetry = crystals.symmetry(crystal)
    names = elastic_symmetry.elastic_names(symmetry)
    constants, stderr = (
        {
            name: read(cells[column], column, where) / PER_GPA[units or "GPa"]
            for name in names
            if cells.get(column := f"{name}{kind}_GPa")
        }
        for kind, read in (("", csv.number), ("_stderr", csv.positive))
    )
    if alone := [name for name in stderr if name not in constants]:
        raise ValueError(f"{where}: {alone[0]}_stderr_GPa stands without {alone[0]}_GPa; give both or neither")
    if tiny := [name for name, value in stderr.items() if value < 1e-5 * abs(constants[name])]:
        raise ValueError(
            f"{where}: {tiny[0]}_stderr_GPa is {stderr[tiny[0]]:g}, so small that {tiny[0]} would decide the whole "
            "loss; give the standard error of the measurement in GPa, or leave the cell empty"
        )
    if constants:
        values = ", ".join(f"{name} = {value:g}" for name, value in constants.items())
        if units is None:
            _check_unit(constants, values, crystal, where)
        if not elastic_symmetry.born_stability(constants, symmetry):
            raise ValueError(
                f"{where}: {values} GPa is elastically unstable for a {symmetry} crystal; "
                "check the values and the order of the columns"
            )
    return constants, stderr


def _check_unit(constants, values: str, crystal: Crystal, where: str) -> None:
    """Raise ValueError where only another unit explains the largest constant, warn where another one might.

    Times the volume of an atom it is an energy: 2 eV in potassium, 18 in titanium, 75 in osmium; but in crystals of
    noble gases 1 eV, 0.2 in neon, and 0.01 in helium, less than the same number in units of 100 GPa would be. Without
    a longitudinal constant among them, they may be of any smallness.
    """
    cell = crystals.unit_cell(crystal)
    energy = max(map(abs, constants.values())) * GPA * cell.get_volume() / len(cell)
    noble = bool(unit_checks.NOBLE_GASES & set(cell.numbers.tolist()))
    least = (0.1 if noble else 0.8) if any(name in constants for name in LONGITUDINAL) else 0.0
    if least < energy < state_points.MAX_STIFFNESS:
        return
    unit = unit_checks.look_like(energy / 15.0, unit_checks.PRESSURES, within=np.inf)
    message = f"{where}: {values} looks {unit}, or say units='GPa' if they are GPa"
    if not noble or energy > state_points.MAX_STIFFNESS:
        raise ValueError(message)
    warnings.warn(message, stacklevel=5)


def _warn_of_rows_off_curve(points, lines, file: str) -> None:
    """Warn of rows that are off the smooth curve through the others, e.g. in Celsius or with columns exchanged.

    Constants of a crystal change with its thermal energy, that of an oscillator: hardly at all near 0 K.
    """
    if not points or np.ptp([point.pressure_gpa for point in points]) > 0.1:
        return
    temperature = np.array([point.temperature for point in points])
    einstein = min(EINSTEIN, temperature.max() / 2)
    thermal = einstein / np.tanh(einstein / 2 / temperature)
    names, elastic, _ = state_points.measured_gpa(points)
    columns = {COLUMNS[x]: [p.crystal.parameters[x] for p in points] for x in points[0].crystal.parameters}
    columns |= {f"{name}_GPa": elastic[:, n] for n, name in enumerate(names)}
    off = defaultdict(list)
    for column, values in columns.items():
        rows = np.flatnonzero(np.isfinite(values))
        for k, expected in curves.off_curve(thermal[rows], np.asarray(values)[rows]).items():
            off[rows[k]].append(f"{column} {values[rows[k]]:.5g} where the other rows suggest {expected:.5g}")
    for row, found in sorted(off.items()):
        warnings.warn(
            f"{file}, line {lines[row]}: at {temperature[row]:g} K, {', '.join(found)}; check the row, its temperature "
            "(K) and the order of its columns",
            stacklevel=3,
        )
