"""Notebooks as users see them: each in JupyterLab, in a headless Chromium, with the `smoke` preset.

`make browser` installs the driver (playwright-core, from npm) and runs this; screenshots are in browser/screenshots.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
BROWSER = Path(__file__).with_name("browser")
SHOTS = BROWSER / "screenshots"
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
TRAININGS = {"02": "force matching", "04": "DiffTRe", "05": "fused training"}
MINUTES = 15  # for one notebook

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
missing = [
    what
    for what, there in (
        ("node", shutil.which("node")),
        ("Chromium (or its path in CHROMIUM)", CHROMIUM),
        ("playwright-core, which `make browser` installs", (BROWSER / "node_modules" / "playwright-core").exists()),
    )
    if not there
]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing), reason=f"this machine lacks {', '.join(missing)}")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the notebooks, set to `smoke`; its address, its token and the folder."""
    root = tmp_path_factory.mktemp("lab")
    folder = shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*", "runs"))
    for path in folder.glob("*.ipynb"):
        text = path.read_text()
        assert text.count(r"PRESET = \"demo\"") == 1
        path.write_text(text.replace(r"PRESET = \"demo\"", r"PRESET = \"smoke\""))
    settings = json.loads((ROOT / "binder" / "overrides.json").read_text())
    # all cells in the page, also those scrolled out of sight
    settings["@jupyterlab/notebook-extension:tracker"] = {"windowingMode": "none"}
    (root / "settings").mkdir()
    (root / "settings" / "overrides.json").write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    ours = {name: str(root / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    with open(root / "lab.log", "w") as log:
        server = subprocess.Popen(
            [
                sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}",
                "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
                f"--LabApp.app_settings_dir={root / 'settings'}",
            ],
            cwd=folder, env={**os.environ, **ours, "TF_CPP_MIN_LOG_LEVEL": "3"}, stdout=log, stderr=log,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            assert server.poll() is None, (root / "lab.log").read_text()
            try:
                urllib.request.urlopen(f"{address}/api?token={token}").close()
                break
            except OSError:
                time.sleep(0.5)
        yield address, token
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_runs_and_every_widget_draws(lab, name):
    address, token = lab
    SHOTS.mkdir(exist_ok=True)
    for old in SHOTS.glob(f"{name[:2]}-*.png"):
        old.unlink()
    task = {
        "chromium": CHROMIUM, "lab": address, "token": token, "notebook": name, "shots": str(SHOTS / name[:2]),
        "minutes": MINUTES,
    }  # fmt: skip
    done = subprocess.run(
        ["node", "drive.mjs", json.dumps(task)], cwd=BROWSER, capture_output=True, text=True,
        timeout=60 * (MINUTES + 8),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    print(name, json.dumps({key: value for key, value in seen.items() if key != "canvases"}))
    # what three epochs have taught may melt, and says so
    seen["errors"] = [text for text in seen["errors"] if "is no longer the crystal it began as" not in text]
    for unwelcome in ("complaints", "errors", "unfinished", "fallbacks", "popups"):
        assert not seen[unwelcome], f"{unwelcome}: {seen[unwelcome]}"

    source = "\n".join(cell.source for cell in nbformat.read(ROOT / "notebooks" / name, 4).cells)
    if "structures.view(" in source or "widgets.trajectory_slider(" in source:
        assert seen["canvases"]
    for file in seen["canvases"]:
        assert_drawn(file)
    if "widgets.trajectory_slider(" in source:
        assert seen["slider"]["to"] > seen["slider"]["from"]
        assert seen["slider"]["moved"] == ["atoms", "marks"]
    if name[:2] in TRAININGS:
        bar = seen["bars"][TRAININGS[name[:2]]]
        assert len(bar["done"]) >= 2, "progress stood still"
        assert bar["done"] == sorted(bar["done"])
        assert bar["done"][-1] == bar["of"]


def assert_drawn(file):
    """Atoms cover a part of the picture and are shaded: a blank or broken canvas has one colour or a few."""
    pixels = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)
    colors, count = np.unique(pixels, axis=0, return_counts=True)
    assert len(colors) > 100, f"{file}: {len(colors)} colours"
    assert 0.02 < 1 - count.max() / len(pixels) < 0.98, f"{file}: {count.max()} of {len(pixels)} pixels alike"
