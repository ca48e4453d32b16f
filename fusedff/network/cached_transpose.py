"""Matrix product a @ x whose derivatives use a stored transpose of a.

The derivative of a @ x with respect to x multiplies by the transpose of a. XLA's CPU backend does not transpose first,
but reads the original layout with strides, which is slower. The network multiplies the same a (the angular matrix of a
geometry) by many x, in every block and every derivative. So the transpose is formed once, and the differentiation rules
below use it: with b = a^T given,

    d(a @ x) = da @ x + a @ dx ,      x receives b @ y  from a cotangent y ,      a receives y @ x^T .

`tests/test_cached_transpose.py` compares with `a @ x` in value and in first and second derivatives.

Measured with JAX 0.10.1, titanium, 150 atoms, on a busy machine with two cores of an AMD EPYC (median of 30 interleaved
pairs): the plain product takes 1.11 times as long for energy and forces, and 1.12 times for the gradient of a force
loss, with the paper's network (1.08 and 1.16 with the network of the preset `demo`). Results agree to the last bit.

This module can be deleted, and `product(a, b, x)` replaced by `a @ x`, as soon as that ratio is 1 on CPUs; on GPUs
cuBLAS takes either layout at the same speed.
"""

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir


def product(a: jax.Array, a_transposed: jax.Array, x: jax.Array) -> jax.Array:
    """a @ x for stacks a (s, n, m), a_transposed (s, m, n) and x (s, m, c): (s, n, c).

    `a_transposed` must be computed from the same numbers as `a`, so that their tangents agree as well; only `a` gets a
    gradient. The function cannot be vmapped.
    """
    dtype = jnp.result_type(a, x)
    return _product.bind(a.astype(dtype), a_transposed.astype(dtype), x.astype(dtype))


_product = Primitive("product_with_transposed_at_hand")
# The gradient with respect to a, y @ x^T for y (s, n, c), and a zero for a_transposed: the transpose rule of this
# primitive, for second derivatives, receives the cotangents of both, which are again a matrix and its transpose.
_outer = Primitive("outer_with_transposed_at_hand")
_outer.multiple_results = True


@_product.def_impl
def _evaluate_product(a, a_transposed, x):
    return a @ x


@_outer.def_impl
def _evaluate_outer(y, x):
    outer = jnp.einsum("snc,smc->snm", y, x)
    return outer, jnp.zeros((x.shape[0], x.shape[1], y.shape[1]), outer.dtype)


@_product.def_abstract_eval
def _shape_of_product(a, a_transposed, x):
    return ShapedArray((*a.shape[:2], x.shape[2]), x.dtype)


@_outer.def_abstract_eval
def _shapes_of_outer(y, x):
    (s, n, _), m = y.shape, x.shape[1]
    return ShapedArray((s, n, m), x.dtype), ShapedArray((s, m, n), x.dtype)


def _product_jvp(primals, tangents):
    a, a_transposed, x = primals
    da, da_transposed, dx = tangents
    value = _product.bind(*primals)
    change = jnp.zeros_like(value)
    if not isinstance(da, ad.Zero):
        change = _product.bind(da, ad.instantiate_zeros(da_transposed), x)
    if not isinstance(dx, ad.Zero):
        along_x = _product.bind(a, a_transposed, dx)
        change = along_x if isinstance(da, ad.Zero) else change + along_x
    return value, change


def _outer_jvp(primals, tangents):
    y, x = primals
    changes = []
    if not isinstance(tangents[0], ad.Zero):
        changes.append(_outer.bind(tangents[0], x))
    if not isinstance(tangents[1], ad.Zero):
        changes.append(_outer.bind(y, tangents[1]))
    return _outer.bind(y, x), [sum(parts) for parts in zip(*changes, strict=True)]


def _product_transpose(cotangent, a, a_transposed, x):
    if ad.is_undefined_primal(x):
        return None, None, _product.bind(a_transposed, a, cotangent)
    return *_outer.bind(cotangent, x), None


def _outer_transpose(cotangents, y, x):
    a, a_transposed = (ad.instantiate_zeros(cotangent) for cotangent in cotangents)
    if ad.is_undefined_primal(y):
        return _product.bind(a, a_transposed, x), None
    return None, _product.bind(a_transposed, a, y)


for _primitive, _evaluate, _jvp, _transpose in (
    (_product, _evaluate_product, _product_jvp, _product_transpose),
    (_outer, _evaluate_outer, _outer_jvp, _outer_transpose),
):
    ad.primitive_jvps[_primitive] = _jvp
    ad.primitive_transposes[_primitive] = _transpose
    mlir.register_lowering(_primitive, mlir.lower_fun(_evaluate, multiple_results=_primitive.multiple_results))
