"""Table of literature values: strict reading, and consistency with other data of the package."""

import itertools

import numpy as np
import pytest
from ase import units
from ase.data import atomic_masses
from ase.eos import EquationOfState

from fusedff.crystallography import elastic_symmetry
from fusedff.data import datasets
from fusedff.measurements import experiments, references, state_points
from fusedff.measurements.references import Reference
from fusedff.units import to_voigt

HEADER = ",".join(references.COLUMNS)
ROW = "Ti,hcp,a,298,2.951,Å,0.001,experiment,no,somebody (1950)"
TABLE = references.load()


def value(phase, quantity, **more):
    (found,) = references.select(TABLE, "Ti", phase, quantity, **more)
    return found.value


def test_a_row_becomes_a_typed_record_that_prints_itself(table):
    (reference,) = references.load(table("# note", HEADER, ROW))
    assert reference == Reference("Ti", "hcp", "a", 298.0, 2.951, "Å", 0.001, "experiment", False, "somebody (1950)")
    assert str(reference) == "hcp Ti a at 298 K: 2.951 ± 0.001 Å (somebody (1950))"
    (bare,) = references.load(table(HEADER, ROW.replace("298", "").replace("0.001", "").replace(",no,", ",yes,")))
    assert (bare.temperature, bare.uncertainty, bare.confirmed) == (None, None, True)


def test_selection_says_what_there_is():
    diffusion = references.select(TABLE, "Ti", "liquid", "self_diffusion")
    assert [reference.value for reference in diffusion] == [5.3]
    assert {r.phase for r in references.select(TABLE, "Ti", quantity="energy_above_hcp")} == {"bcc", "fcc", "omega"}
    with pytest.raises(ValueError, match=r"no reference has phase 'fcc2'; Al has fcc"):
        references.select(TABLE, "Al", "fcc2")
    with pytest.raises(ValueError, match=r"material 'Cu'; the table has Al, Ti"):
        references.select(TABLE, "Cu")


def test_computed_rows_are_what_the_packaged_frames_say():
    energy_of, fits, slopes = {}, {}, {}
    for frame in datasets.load_frames():
        phase, _, family = frame.info["config_type"].partition("-")
        if family == "eos":
            energy = (frame.get_volume() / len(frame), frame.get_potential_energy() / len(frame))
            energy_of.setdefault(phase, []).append(energy)
    for phase, points in energy_of.items():
        equation = EquationOfState(*np.transpose(points), eos="birchmurnaghan")
        fits[phase], slopes[phase] = equation.fit(), equation.eos_parameters[2]
    (own,) = (r for r in references.select(TABLE, "Ti", "hcp", "bulk_modulus_slope") if "titanium_pbe" in r.source)
    assert slopes["hcp"] == pytest.approx(own.value, abs=0.01)
    for phase, (volume, energy, modulus) in fits.items():
        # other equations of state move the minimum within the stated uncertainty
        for quantity, fitted in (("volume", volume), ("bulk_modulus", modulus / experiments.GPA)):
            own = [r for r in references.select(TABLE, "Ti", phase, quantity, "DFT") if "titanium_pbe" in r.source]
            assert fitted == pytest.approx(own[0].value, abs=own[0].uncertainty)
        if phase != "hcp":
            difference = 1000 * (energy - fits["hcp"][1])
            assert difference == pytest.approx(value(phase, "energy_above_hcp"), abs=0.5)


@pytest.mark.parametrize(("mode", "axis"), [("E2g", "x"), ("B1g", "z")])
def test_optical_phonons_are_what_the_displaced_sublattices_say(mode, axis):
    frames = {frame.info["config_id"]: frame for frame in datasets.load_frames()}
    sizes = np.array([0.03, 0.06, 0.10])
    forces = [frames[f"hcp-optical-{axis}{size:+.2f}-v+0.00"].get_forces()[0, "xyz".index(axis)] for size in sizes]
    _, constant = np.polyfit(sizes**2, forces / sizes, 1)  # eV/Å^2, of harmonic and quartic energies
    frequency = np.sqrt(constant / (atomic_masses[22] / 2)) / (2 * np.pi) * units.second / 1e12
    (found,) = references.select(TABLE, "Ti", "hcp", f"phonon_{mode}", "DFT")
    assert frequency == pytest.approx(found.value, abs=0.01)


def test_elastic_constants_of_pbe_are_what_the_strained_cells_say():
    frames = {frame.info["config_id"]: frame for frame in datasets.load_frames()}

    def slope(name, of):
        up, down = (np.asarray(of(frames[f"hcp-4K-strain-{name}{size:+.3f}"])) for size in (0.01, -0.01))
        return (up - down) / 0.02

    def piola_kirchhoff(frame):
        stretch = np.linalg.solve(frames["hcp-4K"].cell.array, frame.cell.array).T
        back = np.linalg.inv(stretch)
        return to_voigt(np.linalg.det(stretch) * back @ frame.get_stress(voigt=False) @ back.T) / experiments.GPA

    stress = {name: slope(name, piola_kirchhoff) for name in ("xx", "zz", "yz", "xy")}
    # relaxed ions give way by what the strain pushes the sublattices over how stiff they are against each other
    push = slope("xx", lambda f: f.get_forces()[1])[1]
    stiff = -np.mean([frames[f"hcp-optical-x+{size}-v+0.00"].get_forces()[1, 0] / size for size in (0.03, 0.06)])
    inner = push**2 / stiff / frames["hcp-4K"].get_volume() / experiments.GPA
    assert stress["xy"][5] == pytest.approx((stress["xx"][0] - stress["xx"][1]) / 2, rel=0.01)
    found = {
        "C11": stress["xx"][0] - inner, "C12": stress["xx"][1] + inner, "C13": (stress["xx"][2] + stress["zz"][0]) / 2,
        "C33": stress["zz"][2], "C44": stress["yz"][3], "C11_clamped": stress["xx"][0], "C12_clamped": stress["xx"][1],
    }  # fmt: skip
    for name, constant in found.items():
        (reference,) = references.select(TABLE, "Ti", "hcp", name, "DFT")
        assert constant == pytest.approx(reference.value, abs=0.3)


def test_bulk_moduli_of_titanium_follow_from_the_measured_elastic_constants():
    for temperature in (4, 298):
        (point,) = state_points.select(experiments.load_state_points(), [temperature])
        stiffness = elastic_symmetry.stiffness(point.elastic_gpa, "hexagonal")
        (found,) = (
            r
            for r in references.select(TABLE, "Ti", "hcp", "bulk_modulus", "experiment")
            if r.temperature == temperature
        )
        assert stiffness[:3, :3].mean() == pytest.approx(found.value, abs=0.1)


def test_the_state_points_of_aluminium_are_the_references():
    points = experiments.load_state_points(experiments.ALUMINIUM_TABLE, "Al", "fcc")
    assert [p.temperature for p in state_points.select(points, role="train")] == [100, 300, 500, 700]
    for point, (name, got) in itertools.product(points, [("a", None), ("C11", 1), ("C12", 1), ("C44", 1)]):
        rows = references.select(TABLE, "Al", "fcc", name, "experiment")
        mine = point.elastic_gpa[name] if got else point.crystal.a
        nearest = min(rows, key=lambda r: abs(r.temperature - point.temperature))
        # the lattice constant is tabulated at 298 K and used at 300 K
        assert mine == pytest.approx(nearest.value, abs=0.00021 if name == "a" else 1e-9)


def test_aluminium_expands_smoothly_and_softens():
    points = experiments.load_state_points(experiments.ALUMINIUM_TABLE, "Al", "fcc")
    temperature = np.array([p.temperature for p in points])
    expansion = np.diff([p.crystal.a for p in points]) / np.diff(temperature) / 4.05
    assert (np.diff(expansion) > 0).all()
    for name in ("C11", "C12", "C44"):
        assert (np.diff([p.elastic[name] for p in points]) < 0).all()


def test_every_number_is_of_a_size_that_its_unit_can_have():
    size = {"Å": (2, 6), "GPa": (10, 300), "THz": (1, 10), "J/m^2": (0.1, 3), "eV": (0.3, 3), "1e-6/K": (1, 40)}
    for reference in TABLE:
        low, high = size.get(reference.unit, (-np.inf, np.inf))
        assert low < reference.value < high, reference


def test_measured_curves_are_what_their_names_say():
    frequency, density = references.load_curve("titanium hcp phonon density of states")
    assert np.trapezoid(density, frequency) == pytest.approx(1, abs=1e-3)
    assert 4 < frequency[np.argmax(density)] < 7  # THz, where the acoustic branches end
    r, g = references.load_curve("titanium liquid g(r)")
    assert np.all(np.diff(r) > 0)
    assert r[np.argmax(g)] == pytest.approx(2.83, abs=0.05)
    assert g[r > 9].mean() == pytest.approx(1, abs=0.02)
    with pytest.raises(ValueError, match="no curve is called 'ice'; there are 'titanium liquid"):
        references.load_curve("ice")
