"""Square matrices for the axes of a tensor: what Shampoo and SOAP keep, and what they make of them.

A slot holds those of one tensor end to end, axis after axis, n × n of an axis with n places. An axis that is too long
has none. Matrices are decomposed in float64, whatever they are kept in.
"""

from __future__ import annotations

from functools import cache, reduce

import numpy as np

from ..blocks import Array
from .rule import Shape, Slot

__all__ = ["along", "along_each", "by_axis", "eigenbasis", "inverse_root", "matrix_slot", "next_eigenbasis", "outer"]

Matrices = dict[int, Array]  # by axis; a long axis is not among them


@cache
def matrix_slot(name: str, meaning: str, longest: int, from_rank: int) -> Slot:
    """A slot of matrices, the same one for the same form: what lies where in it is remembered by slot."""

    def shape_of(shape: Shape) -> Shape | None:
        sizes = [(shape or (1,))[axis] for axis in _axes(shape, longest, from_rank)]
        return (sum(n * n for n in sizes),) if sizes else None

    return Slot(name, meaning, shape=shape_of)


def _axes(shape: Shape, longest: int, from_rank: int) -> list[int]:
    """The axes that have a matrix. A scalar counts as a vector of one element."""
    shape = shape or (1,)
    return [axis for axis, n in enumerate(shape) if n <= longest] if len(shape) >= from_rank else []


def by_axis(vector: Array, shape: Shape, longest: int) -> Matrices:
    """The matrices in a slot, as views."""
    found, start = {}, 0
    for axis in _axes(shape, longest, 1):
        n = shape[axis]
        found[axis] = vector[start : start + n * n].reshape(n, n)
        start += n * n
    return found


def outer(x: Array, axis: int) -> Array:
    """X Xᵀ of the tensor as a matrix with this axis in front, the others flat: n × n."""
    matrix = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    product: Array = np.matmul(matrix, matrix.T)
    return product


def along(x: Array, axis: int, matrix: Array) -> Array:
    """The tensor with its vectors along one axis multiplied: yᵢ = Σⱼ xⱼ matrixⱼᵢ."""
    turned: Array = np.moveaxis(np.tensordot(x, matrix, axes=([axis], [0])), -1, axis)
    return turned


def along_each(x: Array, matrices: Matrices, back: bool = False) -> Array:
    """`along` every axis that has a matrix; `back`: with the transposed ones."""
    return reduce(lambda y, item: along(y, item[0], item[1].T if back else item[1]), matrices.items(), x)


def inverse_root(matrix: Array, root: int, least: float) -> Array | None:
    """M^(-1/root) of a symmetric matrix, no eigenvalue taken below `least`. None where M has overflowed."""
    if not np.isfinite(matrix).all():
        return None
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    scaled = vectors * np.power(np.maximum(values, least), -1.0 / root)
    product: Array = np.matmul(scaled, vectors.T)
    return product


def eigenbasis(matrix: Array) -> Array | None:
    """The eigenvectors of a symmetric matrix, those of the largest eigenvalues first. None where it has overflowed."""
    if not np.isfinite(matrix).all():
        return None
    basis: Array = np.linalg.eigh(matrix.astype(np.float64))[1][:, ::-1]
    return basis


def next_eigenbasis(matrix: Array, basis: Array) -> tuple[Array, Array] | None:
    """One power step from a basis towards the eigenvectors, and the order in which it takes the old ones.

    The old ones go by their Rayleigh quotients, the largest first. None where the matrix has overflowed.
    """
    doubles, old = matrix.astype(np.float64), basis.astype(np.float64)
    product = np.matmul(doubles, old)
    if not np.isfinite(product).all():
        return None
    order = np.argsort(-np.add.reduce(old * product, axis=0), kind="stable")
    return np.linalg.qr(product[:, order])[0], order
