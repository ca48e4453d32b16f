"""Small archives in the published layout of the titanium paper's data."""

import io
import zipfile

import numpy as np
from ase.build import bulk

FOLDER = "261022_AllInitAndBulk_256atoms_with_types_curatedData"
NESTED = "Data DFT and EXP/DFT_data/InitAndBulk_256atoms_curatedData.zip"


def paper_arrays(n=4):
    """Arrays of `n` small frames as published: flat rows, eV and Å, the sign of the virial; one cell is skewed."""
    rng = np.random.default_rng(5)
    cell = bulk("Ti", "hcp", a=2.95, c=4.68) * (2, 2, 1)
    boxes = np.stack([cell.cell.array * (1 + 0.01 * i) for i in range(n)])
    boxes[-1, 2, 0] += 1.5
    positions = cell.get_scaled_positions() @ boxes + rng.normal(scale=0.05, size=(n, len(cell), 3))
    virial = rng.normal(size=(n, 3, 3))
    return {
        "box.npy": boxes.reshape(n, 9),
        "coord.npy": positions.reshape(n, -1),
        "energy.npy": -7.9 * len(cell) + rng.normal(size=n),
        "force.npy": rng.normal(size=(n, 3 * len(cell))),
        "types.npy": np.arange(n) % 2,
        "virial.npy": (virial + virial.swapaxes(1, 2)).reshape(n, 9),
    }


def npy(array, **kwargs):
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def paper_zip(files):
    """Archive in the published layout: a nested archive, and the additional files that macOS writes."""
    inner = {f"{FOLDER}/{name}": content for name, content in files.items()}
    inner |= {f"__MACOSX/{FOLDER}/._{name}": b"mac" for name in files}
    boxes = {"ExperimentalLattice_Boxes_AtomPositions/23K_expt_box.npy": npy(np.eye(3))}
    return zipped(
        {
            NESTED: zipped(inner),
            "Data DFT and EXP/readme_data.md": b"text",
            "Data DFT and EXP/Exp_data/Boxes.zip": zipped(boxes),
            "__MACOSX/Data DFT and EXP/._DFT_data.zip": b"mac",
        }
    )


def downloader(content, calls):
    """Downloader in place of pooch's: it writes `content`, or raises it, and appends the address to `calls`."""

    def download(url, output_file, pooch):
        calls.append(url)
        if isinstance(content, Exception):
            raise content
        with open(output_file, "wb") as file:
            file.write(content)

    return download
