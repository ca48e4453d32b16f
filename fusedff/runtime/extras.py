"""Optional dependencies, which are installed with an extra of the package."""

from importlib.util import find_spec


def require(extra: str, *modules: str) -> None:
    """Raise ImportError, naming the `extra` to install, unless all `modules` are installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ImportError(f"{' and '.join(missing)} not installed; run pip install 'fusedff[{extra}]'", name=missing[0])
