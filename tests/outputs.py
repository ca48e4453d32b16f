"""Output files of DFT programs for given frames, with the parts that are read; for the tests of conversion."""

import io

import numpy as np
from archives import npy
from ase.units import GPa, create_units

from fusedff.data import labelled_frames

TO_ZERO_SMEARING = 0.012  # eV, energy(sigma->0) less the free energy
_QE = create_units("2006")
_XX_XY_XZ = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])


def rows(array, form="{:16.10f}"):
    return "\n".join(" ".join(form.format(x) for x in row) for row in np.atleast_2d(array)) + "\n"


def outcar(frames, unconverged=()):
    """VASP's OUTCAR; stress in kbar, positive in compression, as xx yy zz xy yz zx."""
    (symbol,) = set(frames[0].symbols)
    text = 2 * f" POTCAR:    PAW_PBE {symbol} 22Jun2005\n"
    text += f"   ions per type =               {len(frames[0])}\n"
    for n, frame in enumerate(frames):
        energy, forces, stress = labelled_frames.labels(frame)
        reached = "EDIFF was not reached (unconverged)" if n in unconverged else "because EDIFF is reached"
        kbar = -stress[[0, 1, 2, 5, 3, 4]] / (0.1 * GPa)
        text += f"----- Iteration {n + 1}(   9)  -----\n----- aborting loop {reached} -----\n"
        text += "  in kB  " + rows(kbar)
        text += "      direct lattice vectors                 reciprocal lattice vectors\n"
        text += rows(np.hstack([frame.cell.array, frame.cell.reciprocal().array]))
        text += " POSITION                                       TOTAL-FORCE (eV/Angst)\n -----\n"
        text += rows(np.hstack([frame.positions, forces])) + " -----\n"
        text += "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  -----\n"
        text += f"  free  energy   TOTEN  = {energy:18.8f} eV\n\n"
        text += f"  energy  without entropy= {energy:18.8f}  energy(sigma->0) = {energy + TO_ZERO_SMEARING:18.8f}\n"
    return text


def _varray(name, array):
    return f'<varray name="{name}">' + "".join(f"<v>{row}</v>" for row in rows(array).splitlines()) + "</varray>\n"


def _structure(frame, name=""):
    basis = "<crystal>" + _varray("basis", frame.cell.array) + "</crystal>"
    return f'<structure name="{name}">{basis}{_varray("positions", frame.get_scaled_positions(wrap=False))}</structure>'


def vasprun(frames, unconverged=(), most=5):
    """vasprun.xml with NELM = `most`; stress as in OUTCAR, 3 x 3."""
    atoms = "".join(f"<rc><c>{symbol} </c><c>1</c></rc>" for symbol in frames[0].symbols)
    text = f'<modeling><incar><i type="int" name="NELM">{most}</i></incar><kpoints>'
    text += _varray("kpointlist", np.zeros((1, 3))) + _varray("weights", [[1.0]]) + "</kpoints>"
    text += f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>'
    text += _structure(frames[0], "initialpos")
    for n, frame in enumerate(frames):
        energy, forces, stress = labelled_frames.labels(frame)
        energies = f'<energy><i name="e_fr_energy">{energy:.8f}</i>'
        energies += f'<i name="e_0_energy">{energy + TO_ZERO_SMEARING:.8f}</i></energy>'
        steps = (most if n in unconverged else most - 2) * f"<scstep>{energies}</scstep>"
        text += f"<calculation>{steps}{_structure(frame)}{_varray('forces', forces)}"
        text += _varray("stress", -stress[_XX_XY_XZ] / (0.1 * GPa)) + energies + "</calculation>\n"
    return text + "</modeling>\n"


def espresso(frames, unconverged=()):
    """Output of a run of pw.x in Ry and bohr; the energy of a cycle that has not converged lacks its `!`."""
    first, alat = frames[0], 6.8
    unit = alat * _QE["Bohr"]
    text = "     Program PWSCF v.7.2 starts\n"
    text += f"     number of atoms/cell      = {len(first):10d}\n     number of atomic types    =          1\n"
    text += f"     celldm(1)=   {alat:.6f}  celldm(2)=   0.000000\n     crystal axes: (cart. coord. in units of alat)\n"
    for n, row in enumerate(rows(first.cell.array / unit).splitlines()):
        text += f"               a({n + 1}) = ( {row} )\n"
    text += "     site n.     atom                  positions (alat units)\n"
    for n, row in enumerate(rows(first.positions / unit).splitlines()):
        text += f"   {n + 1}           {first.symbols[n]}  tau(   {n + 1}) = ( {row} )\n"
    for n, frame in enumerate(frames):
        energy, forces, stress = labelled_frames.labels(frame)
        if n:
            text += "CELL_PARAMETERS (angstrom)\n" + rows(frame.cell.array) + "\nATOMIC_POSITIONS (angstrom)\n"
            lines = zip(frame.symbols, rows(frame.positions).splitlines(), strict=True)
            text += "".join(f"{symbol} {row}\n" for symbol, row in lines)
        mark = " " if n in unconverged else "!"
        text += f"{mark}    total energy              = {energy / _QE['Ry']:18.10f} Ry\n"
        text += "     Forces acting on atoms (cartesian axes, Ry/au):\n\n"
        for k, row in enumerate(rows(forces / (_QE["Ry"] / _QE["Bohr"])).splitlines()):
            text += f"     atom    {k + 1} type  1   force = {row}\n"
        text += "\n     total   stress  (Ry/bohr**3)                   (kbar)     P=        0.00\n"
        text += rows(-stress[_XX_XY_XZ] / (_QE["Ry"] / _QE["Bohr"] ** 3), "{:18.12f}") + "\n"
    return text


def fhi_aims(frames, unconverged=()):
    """Output of molecular dynamics with FHI-aims, in eV and Å."""
    first = frames[0]
    text = "          Invoking FHI-aims ...\n"
    text += f"  | Number of atoms                   : {len(first):8d}\n"
    text += "  | Number of spin channels           :        1\n"
    text += f"  The structure contains {len(first):8d} atoms,  and a total of 116.000 electrons.\n"
    text += "  | Number of Kohn-Sham states (occupied + empty):       60\n"
    text += "  | Unit cell:\n" + "".join(f"  |  {row}\n" for row in rows(first.cell.array).splitlines())
    text += "  | Atomic structure:\n  |       Atom                x [A]            y [A]            z [A]\n"
    for n, row in enumerate(rows(first.positions).splitlines()):
        text += f"  |    {n + 1}: Species {first.symbols[n]} {row}\n"
    text += "  Begin self-consistency iteration #    1\n"
    for n, frame in enumerate(frames):
        energy, forces, stress = labelled_frames.labels(frame)
        text += "  |\n" if n == 0 else "  Begin self-consistency loop: Re-initialization.\n  |\n"
        text += f"  | Electronic free energy        : {energy / 27.2114:18.8f} Ha {energy:18.8f} eV\n"
        if n not in unconverged:
            text += "  Self-consistency cycle converged.\n"
        text += f"  | Total energy corrected        : {energy + TO_ZERO_SMEARING:18.8f} eV\n"
        text += f"  | Electronic free energy        : {energy:18.8f} eV\n"
        text += "  Total atomic forces (unitary forces cleaned) [eV/Ang]:\n"
        text += "".join(f"  |    {k + 1} {row}\n" for k, row in enumerate(rows(forces).splitlines()))
        text += "  |              Analytical stress tensor - Symmetrized              |\n" + 4 * "  |\n"
        lines = zip("xyz", rows(stress[_XX_XY_XZ]).splitlines(), strict=True)
        text += "".join(f"  |  {axis}   {row}  |\n" for axis, row in lines)
        text += "  Atomic structure (and velocities) as used in the preceding time step:\n"
        text += "".join(f"  lattice_vector   {row}\n" for row in rows(frame.cell.array).splitlines())
        lines = zip(frame.symbols, rows(frame.positions).splitlines(), strict=True)
        text += "".join(f"  atom   {row} {symbol}\n" for symbol, row in lines)
    return text + "          Have a nice day.\n"


def deepmd(folder, frames, sizes, types="0\n", type_map="Cu\n"):
    """Write a DeePMD folder with sets of these sizes."""
    folder.mkdir(parents=True)
    (folder / "type.raw").write_text(types * len(frames[0]))
    if type_map:
        (folder / "type_map.raw").write_text(type_map)
    ends = np.cumsum(sizes)
    for n, (start, end) in enumerate(zip(ends - sizes, ends, strict=True)):
        labels = [labelled_frames.labels(frame) for frame in frames[start:end]]
        part = frames[start:end]
        volumes = np.array([frame.get_volume() for frame in part])
        stresses = np.array([label.stress[_XX_XY_XZ].ravel() for label in labels])
        (folder / f"set.{n:03d}").mkdir()
        for name, array in {
            "box": [frame.cell.array.ravel() for frame in part],
            "coord": [frame.positions.ravel() for frame in part],
            "energy": [label.energy for label in labels],
            "force": [label.forces.ravel() for label in labels],
            "virial": -stresses * volumes[:, None],
        }.items():
            (folder / f"set.{n:03d}" / f"{name}.npy").write_bytes(npy(np.array(array)))


def text_of(atoms):
    """Extended XYZ of frames."""
    from ase.io import write

    buffer = io.StringIO()
    write(buffer, atoms, format="extxyz")
    return buffer.getvalue()
