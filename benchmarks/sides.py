"""Processes that are compared (sides): fusedff and chemtrain, each in its own Python environment."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEER_ENVIRONMENT = ROOT / ".venv-chemtrain"
REQUIREMENTS = Path(__file__).with_name("chemtrain-requirements.txt")


class SideFailedError(RuntimeError):
    """A side raised an error or died."""


class Side:
    """A worker process; `ask` blocks until it answers."""

    def __init__(self, name: str, python: Path | str):
        self.name, self.python, self.log = name, python, tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [str(python), "-W", "ignore", "-m", "benchmarks.worker", name],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def ask(self, do: str, **arguments):
        """The result of a method of `worker.Worker`.

        Raises SideFailedError with its error, or with the last lines of its log if it died.
        """
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SideFailedError(f"{self.name} died with exit status {self.process.wait()}: {self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise SideFailedError(f"{self.name}: {answer['error']}")
        return answer["result"]

    def again(self) -> "Side":
        """A new process in place of one that died."""
        return Side(self.name, self.python)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()

    def _last_words(self):
        self.log.seek(0)
        return " / ".join(self.log.read().strip().splitlines()[-3:])


def pinned(packages) -> dict[str, str]:
    """Versions in chemtrain's environment of chemtrain and of those of `packages` that it has."""
    pins = dict(line.split("==") for line in REQUIREMENTS.read_text().split())
    return {name: pins[name] for name in ("chemtrain", *packages) if name in pins}


def fusedff() -> Side:
    """fusedff in the environment of this process."""
    return Side("fusedff", sys.executable)


def chemtrain(configuration: str) -> Side:
    """chemtrain in the configuration "tight" or "example", in its own environment, which is created if needed."""
    python = PEER_ENVIRONMENT / "bin" / "python"
    made = PEER_ENVIRONMENT / ".made"
    if not made.exists() or made.read_text() != REQUIREMENTS.read_text():
        print(f"installing chemtrain in {PEER_ENVIRONMENT.name}, once")
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", PEER_ENVIRONMENT], check=True)
        install = [uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "--requirement", REQUIREMENTS]
        subprocess.run(install, check=True)
        made.write_text(REQUIREMENTS.read_text())
    return Side(configuration, python)
