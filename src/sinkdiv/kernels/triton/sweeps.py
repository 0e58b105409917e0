"""Softmins of a cost matrix that a program holds in registers, or goes through in blocks of rows where it is larger.

They are base 2: log₂ Σ_j 2^(h_j − scale·C_ij) with scale = 1/(ε ln 2) and h = log₂ b + scale·g. A sweep finds both
softmins of a step, from each block loaded once: the columns' sums take in its rows as soon as their potential is known.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sinkdiv.kernels.triton.tiles import INF


@triton.jit
def log2_weights(weights):
    """−∞ where there is no weight."""
    return tl.where(weights > 0, tl.log2(tl.where(weights > 0, weights, 1.0)), -INF)


@triton.jit
def log_sum(exponents, axis: tl.constexpr):
    """log₂ Σ 2^exponents."""
    top = tl.max(exponents, axis)
    return top + tl.log2(tl.sum(tl.exp2(exponents - tl.expand_dims(top, axis)), axis))


@triton.jit
def costs_of(C, first, n, m, R: tl.constexpr, M: tl.constexpr, L: tl.constexpr):
    """R rows of a cost matrix (n, m) as a tile (M / L, R, L), zero beyond its edges.

    A thread then holds about as many rows as columns, whose sums need few exchanges between threads.
    """
    rows = (first + tl.arange(0, R))[None, :, None]
    columns = tl.arange(0, M // L)[:, None, None] * L + tl.arange(0, L)[None, None, :]
    # Rows are not contiguous. Saying that they are makes the compiler give them those lanes of a warp that columns do
    # not fill.
    pointers = tl.max_contiguous(C + rows * m + columns, (1, 2, L))
    return tl.load(pointers, mask=(rows < n) & (columns < m), other=0.0)


@triton.jit
def _sums_of_rows(costs, h, scale, L: tl.constexpr):
    """log₂ Σ_j 2^(h_j − scale·C_ij), (R,)."""
    exponents = tl.reshape(h, (h.shape[0] // L, L))[:, None, :] - costs * scale
    top = tl.max(tl.max(exponents, 0), 1)
    return top + tl.log2(tl.sum(tl.sum(tl.exp2(exponents - top[None, :, None]), 0), 1))


@triton.jit
def spread_out(vector):
    """The same vector, each entry held by one thread. A sum over a tile is held by all threads that share a row."""
    return tl.sum(vector[None, :], 0)


@triton.jit
def _placed(values, block, whole, K: tl.constexpr):
    """``whole`` (K, R) with one block of it replaced by ``values`` (R,)."""
    return tl.where((tl.arange(0, K) == block)[:, None], values[None, :], whole)


@triton.jit
def row_sums(resident, C, h, scale, n, m, N: tl.constexpr, M: tl.constexpr, R: tl.constexpr, L: tl.constexpr):
    """log₂ Σ_j 2^(h_j − scale·C_ij), (N,)."""
    if R == N:
        return _sums_of_rows(resident, h, scale, L)
    sums = tl.zeros((N // R, R), resident.dtype)
    for block in range(N // R):
        costs = costs_of(C, block * R, n, m, R, M, L)
        sums = _placed(_sums_of_rows(costs, h, scale, L), block, sums, N // R)
    return tl.reshape(sums, (N,))


@triton.jit
def both_sums(
    resident, C, a, h, damping, scale, n, m, N: tl.constexpr, M: tl.constexpr, R: tl.constexpr, L: tl.constexpr
):  # fmt: skip
    """Both softmins of a step: R_i = log₂ Σ_j 2^(h_j − scale·C_ij), and S_j = log₂ Σ_i 2^(u_i − scale·C_ij), where
    u = log₂ a − damping·R is what the rows send back."""
    if R == N:
        rows = _sums_of_rows(resident, h, scale, L)
        sent = log2_weights(tl.load(a + tl.arange(0, N), mask=tl.arange(0, N) < n, other=0.0)) - damping * rows
        return rows, tl.reshape(log_sum(sent[None, :, None] - resident * scale, 1), (M,))
    sums = tl.zeros((N // R, R), resident.dtype)
    top = tl.full((M // L, L), -INF, resident.dtype)
    total = tl.zeros((M // L, L), resident.dtype)
    for block in range(N // R):
        costs = costs_of(C, block * R, n, m, R, M, L)
        rows = _sums_of_rows(costs, h, scale, L)
        sums = _placed(rows, block, sums, N // R)
        numbers = block * R + tl.arange(0, R)
        sent = log2_weights(tl.load(a + numbers, mask=numbers < n, other=0.0)) - damping * rows
        exponents = sent[None, :, None] - costs * scale
        higher = tl.maximum(top, tl.max(exponents, 1))
        base = tl.where(higher > -INF, higher, 0.0)  # −∞ if no row so far has weight
        total = total * tl.exp2(top - base) + tl.sum(tl.exp2(exponents - base[:, None, :]), 1)
        top = higher
    return tl.reshape(sums, (N,)), tl.reshape(top + tl.log2(total), (M,))
