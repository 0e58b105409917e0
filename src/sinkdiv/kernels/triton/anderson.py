"""Anderson's extrapolation of one iteration, in registers. The names and the reasons are in solvers/anderson.py.

A history is a tuple: Δx_j + β Δr_j and Δr_j (8, M), the inner products (8, 8) of the latter, the place of the newest
pair, and how many of the newest pairs are valid. The metric (M,) and the algebra are in float64.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sinkdiv.kernels.triton.tiles import INF

DEPTH = tl.constexpr(8)
KEPT = tl.constexpr(2)
RIDGE = tl.constexpr(1e-8)


@triton.jit
def empty_history(metric, T: tl.constexpr):
    zeros, zero = tl.zeros((DEPTH, metric.shape[0]), T), tl.full((), 0, tl.int32)
    return zeros, zeros, tl.zeros((DEPTH, DEPTH), tl.float64), zero, zero


@triton.jit
def appended(history, dx, r_change, metric, MIXING: tl.constexpr, MODULO_CONSTANTS: tl.constexpr):
    """The history with one more pair in it. The pair is not valid until `counted` says so."""
    mixed, dr, gram, newest, count = history
    newest = (newest + 1) & (DEPTH - 1)
    weighted = metric * centred_on(r_change, metric, MODULO_CONSTANTS)
    new = tl.arange(0, DEPTH) == newest
    mixed = tl.where(new[:, None], (dx + r_change * MIXING)[None, :], mixed)
    dr = tl.where(new[:, None], r_change[None, :], dr)
    products = _products(dr, weighted)
    gram = tl.where(new[:, None], products[None, :], tl.where(new[None, :], products[:, None], gram))
    return mixed, dr, gram, newest, count


@triton.jit
def counted(history, count):
    """The history whose newest ``count`` pairs are valid. Of a full history only the newest few stay valid."""
    mixed, dr, gram, newest, _ = history
    return mixed, dr, gram, newest, tl.where(count == DEPTH, KEPT, count)


@triton.jit
def centred_on(vector, metric, MODULO_CONSTANTS: tl.constexpr):
    vector = vector.to(tl.float64)
    if MODULO_CONSTANTS:
        vector = vector - tl.sum(metric * vector, 0)
    return vector


@triton.jit
def _products(dr, weighted):
    """The inner products (8,) of all Δr_j with a centred and weighted vector. The Δr_j then need no centring."""
    return tl.sum(dr.to(tl.float64) * weighted[None, :], 1)


@triton.jit
def _least_squares(gram, right, newest, count):
    """γ (8,) of the regularised normal equations of the ``count`` newest pairs, by Gauss-Jordan elimination."""
    places = tl.arange(0, DEPTH)
    valid = ((newest - places) & (DEPTH - 1)) < count
    diagonal = places[:, None] == places[None, :]
    A = tl.where(valid[:, None] & valid[None, :], gram, 0.0)
    trace = tl.sum(tl.sum(tl.where(diagonal, A, 0.0), 1), 0)
    A = A + tl.where(diagonal, tl.where(trace > 0, trace * RIDGE, 1.0), 0.0)
    gamma = tl.where(valid, right, 0.0)
    for age in range(count):
        pivotal = places == ((newest - age) & (DEPTH - 1))
        column = tl.sum(tl.where(pivotal[None, :], A, 0.0), 1)
        inverse = 1 / tl.sum(tl.where(pivotal, column, 0.0), 0)
        row = tl.sum(tl.where(pivotal[:, None], A, 0.0), 0) * inverse
        known = tl.sum(tl.where(pivotal, gamma, 0.0), 0) * inverse
        A = tl.where(pivotal[:, None], row[None, :], A - column[:, None] * row[None, :])
        gamma = tl.where(pivotal, known, gamma - column * known)
    return tl.where(valid & (tl.abs(gamma) < INF), gamma, 0.0)


@triton.jit
def anderson_step(history, r, weighted, MIXING: tl.constexpr):
    """The step from the point with residual r, or β r if the history is empty.

    ``weighted`` is r, centred and times the metric.
    """
    mixed, dr, gram, newest, count = history
    step = r * MIXING
    if count > 0:
        gamma = _least_squares(gram, _products(dr, weighted), newest, count)
        step -= tl.sum(tl.where((gamma != 0)[:, None], gamma.to(r.dtype)[:, None] * mixed, 0.0), 0)
    return step
