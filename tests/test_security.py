"""Files that are read cannot run code: no pickle, no evaluated text, no shell, in the package and the notebooks."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "fusedff").rglob("*.py")), *sorted((ROOT / "notebooks").rglob("[!.]*.ipynb"))]

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "subprocess", "pty", "runpy"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.spawnv", "torch.load"}
UNPICKLING = {"np.load", "numpy.load", "jnp.load"}  # unless told not to


def code(path: Path) -> list[str]:
    """The source of a module, or of every code cell; `!` and `%` lines are no Python and fail to parse."""
    if path.suffix == ".py":
        return [path.read_text()]
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def offences(source: str):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"imports {name}" for name in names if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            safe = any(k.arg == "allow_pickle" and getattr(k.value, "value", None) is False for k in node.keywords)
            if called in CALLS or called.startswith("get_ipython().") or (called in UNPICKLING and not safe):
                yield f"calls {ast.unparse(node)}"
            yield from (f"shell in {called}" for k in node.keywords if k.arg == "shell")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_evaluated_or_handed_to_a_shell(path):
    assert not [offence for source in code(path) for offence in offences(source)]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from subprocess import run",
        "eval(x)",
        "os.system('ls')",
        "get_ipython().system('ls')",
        "np.load(f)",
        "f(shell=True)",
    ],
)
def test_what_is_forbidden_would_be_seen(source):
    assert list(offences(source))


@pytest.mark.parametrize("cell", ["!ls", "%%bash\nls", "%run other.py"])
def test_a_shell_line_in_a_notebook_would_be_seen(cell):
    with pytest.raises(SyntaxError):
        list(offences(cell))
