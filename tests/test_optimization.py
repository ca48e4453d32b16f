"""XLA's options in most tests (conftest.py) give the same results as the default options, which users have."""

import os

import jax
import numpy as np
import pytest
from argon import laid_out
from ase.build import bulk

from fusedff.potential import Potential
from fusedff.study import presets

# what XLA would do by itself where conftest.py asks for something else
OWN = {
    "xla_cpu_use_fusion_emitters": True, "xla_cpu_parallel_codegen_split_count": 32, "xla_backend_optimization_level": 3
}  # fmt: skip
USERS = OWN if "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", "") else None


@pytest.fixture
def level():
    """A function that switches the optimizations of XLA on or off, and drops what was compiled before."""
    asked = jax.config.read("jax_disable_most_optimizations")

    def switch(optimized):
        jax.config.update("jax_disable_most_optimizations", not optimized)
        jax.clear_caches()

    yield switch
    switch(not asked)


@pytest.mark.parametrize(("dtype", "precision"), [("float64", 1e-11), ("float32", 2e-4)])
def test_optimized_programs_give_the_numbers_of_plain_ones(level, key, dtype, precision):
    """Energy, forces, stress and the gradient of forces squared in the parameters, which training takes.

    Sums in another order differ in the last digits, some hundred times more where terms cancel.
    """
    frame = bulk("Ti", "hcp", a=2.95, c=4.68) * (2, 2, 1)
    frame.rattle(0.1, seed=1)
    start = Potential.create(key, presets.SMOKE.network, {"Ti": 0.0})
    potential = start.with_params(jax.tree.map(lambda leaf: leaf.astype(dtype), start.params))
    system, near = laid_out(frame, potential.cutoff)
    system = system._replace(positions=system.positions.astype(dtype), cells=system.cells.astype(dtype))

    def both(params):
        def loss(params):
            found = potential.with_params(params).evaluate(system, near)
            return (found.forces**2).sum(), found

        return jax.grad(loss, has_aux=True)(params)

    said = []
    for optimized, options in ((False, None), (True, USERS)):
        level(optimized)
        said.append(jax.tree.map(np.asarray, jax.jit(both, compiler_options=options)(potential.params)))
    for plain, fast in zip(*map(jax.tree.leaves, said), strict=True):
        np.testing.assert_allclose(fast, plain, atol=precision * max(np.abs(plain).max(), 1e-3))
