"""The matrix product with a stored transpose equals the plain product, also in its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fusedff.network.cached_transpose import product


@pytest.fixture
def operands():
    a, x = (jax.random.normal(jax.random.PRNGKey(n), shape) for n, shape in enumerate([(3, 4, 5), (3, 5, 2)]))
    return a, x


def ours(a, x):
    return jnp.tanh(product(a, jnp.swapaxes(a, 1, 2), x))


def plain(a, x):
    return jnp.tanh(a @ x)


def test_value(operands):
    np.testing.assert_allclose(ours(*operands), plain(*operands), atol=1e-12)


def test_derivatives_agree_with_finite_differences(operands):
    check_grads(ours, operands, order=2, modes=("fwd", "rev"))


def energy_gradient(function, a, x):
    return jax.grad(lambda a: jnp.sum(function(a, x) ** 2))(a)


@pytest.mark.parametrize(
    "derivative",
    [
        lambda f, a, x: jax.grad(lambda x: jnp.sum(energy_gradient(f, a, x) ** 2))(x),  # force matching
        lambda f, a, x: jax.jvp(lambda x: energy_gradient(f, a, x), (x,), (x**2,))[1],
        lambda f, a, x: jax.grad(lambda x: jnp.sum(jax.jvp(lambda a: f(a, x), (a,), (a**2,))[1]))(x),
        lambda f, a, x: jax.linearize(lambda a: energy_gradient(f, a, x), a)[1](a**2),  # Born stiffness
    ],
)
def test_second_derivatives_are_those_of_the_plain_product(operands, derivative):
    np.testing.assert_allclose(
        jax.jit(derivative, static_argnums=0)(ours, *operands), derivative(plain, *operands), atol=1e-10
    )


def test_mixed_precision_is_promoted_and_gradients_keep_their_own(operands):
    a, x = operands[0].astype(np.float32), operands[1].astype(np.float64)
    assert ours(a, x).dtype == np.float64
    gradients = jax.grad(lambda a, x: jnp.sum(ours(a, x)), (0, 1))(a, x)
    assert [g.dtype for g in gradients] == [np.float32, np.float64]
    np.testing.assert_allclose(gradients[1], jax.grad(lambda x: jnp.sum(plain(a, x)))(x), atol=1e-12)


@pytest.mark.parametrize(
    "gradient",
    [
        lambda a, x: jax.grad(lambda x: jnp.sum(ours(a, x)))(x),
        # of a geometry from which both matrices are made, like the directions in a network
        lambda a, x: jax.grad(lambda x: jnp.sum(energy_gradient(ours, a, x) ** 2))(x),
    ],
)
def test_no_transposed_product_is_left_in_gradients(operands, gradient):
    """What the module is for: where the matrix is contracted over its rows, XLA on CPUs is slow."""
    text = str(jax.make_jaxpr(gradient)(*operands))
    assert "product_with_transposed_at_hand" in text
    assert "dot_general" not in text
