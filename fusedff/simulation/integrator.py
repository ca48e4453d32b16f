"""The integrator of jax-md, without the rest of jax-md.

`import jax_md` loads neural networks and compiles the shapes of rigid bodies: six seconds in every process, of which
the integrator needs a tenth.
"""

import sys
from functools import cache
from importlib import import_module, util
from types import ModuleType


@cache
def jax_md_simulate() -> ModuleType:
    """The module `jax_md.simulate`. Call it outside of jit: jax-md computes while it is imported.

    Unless jax-md has been imported before, this is a separate copy, which does not affect a later `import jax_md`.
    """
    if "jax_md" in sys.modules:
        return import_module("jax_md.simulate")
    if (spec := util.find_spec("jax_md")) is None:
        raise ModuleNotFoundError("jax-md is not installed; install fusedff with its dependencies", name="jax_md")
    sys.modules["jax_md"] = util.module_from_spec(spec)  # whose code, which imports everything, is not run
    try:
        return import_module("jax_md.simulate")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "jax_md"]:
            del sys.modules[name]
