"""Properties of the models that ship: computed one model after another, each kept as soon as it is done."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import record
from fusedff.potential import Potential
from fusedff.runtime import storage
from fusedff.simulation.langevin import ExplodedTrajectoryError
from fusedff.study import presets
from fusedff.study.run_folder import MODELS


def run(
    name: str, models: Sequence[str], settings, into: Path, compute: Callable[[str, Potential], dict]
) -> Iterator[dict]:
    """Yield the results so far, after every model: {"settings", "digests", "models": results or error messages}.

    `compute(model, potential)` returns the results of a model. An earlier result of that `name` for the same models
    and settings is continued.
    """
    potentials = {model: Potential.load(f"titanium-{model}") for model in MODELS}
    digests = {model: storage.digest(potential.params) for model, potential in potentials.items()}
    asked = {"settings": presets.as_dict(settings), "digests": digests}
    found = record.load_if_same(name, asked, into).get("models", {})
    for model in models:
        if model not in found:
            try:
                result = compute(model, potentials[model])
            except (ExplodedTrajectoryError, ValueError) as error:  # also a result: a phase is not stable
                result = {"failed": str(error)}
            found = found | {model: result}
        yield asked | {"models": found}


def failures(found: dict) -> dict[str, str]:
    """Model -> error message, of those that failed."""
    return {model: result["failed"] for model, result in found["models"].items() if "failed" in result}
