"""Sums Σ_j w_ij v_j, and Σ_j w_ij (p_i − q_j), over the pairs of a plan: its products and gradients.

The second form is that of gradients. In few coordinates differences are summed as they are. In many, the
result is p_i Σ_j w_ij minus the matrix product Σ_j w_ij q_j. A program makes a group of columns of the result. Where
there are several groups, the weights are formed again for each of them.
"""

from __future__ import annotations

import enum

import triton
import triton.language as tl

from sinkdiv.kernels.triton.tiles import (
    INF,
    LN2,
    LOG2E,
    base_two,
    begun,
    costs,
    costs_of_squares,
    ends,
    entries,
    exponents,
    exponents_of_costs,
    motion_of,
    movements,
    scores_of,
    slopes,
    squares,
    stretches,
)


class Weight(enum.IntEnum):
    """w_ij; φ is the cost's slope and σ its stretch (`tiles`), Ċ_ij = φ_ij (x_i − y_j)·(dx_i − dy_j)."""

    PLAN = 0  # P_ij
    GRADIENT = 1  # P_ij φ_ij
    WEIGHTED = 2  # P_ij (s_i + t_j + log P_ij) φ_ij
    TANGENT = 3  # P_ij (s_i + t_j − Ċ_ij/ε + σ_ij) φ_ij
    COST = 4  # P_ij C_ij


PLAN = tl.constexpr(int(Weight.PLAN))
GRADIENT = tl.constexpr(int(Weight.GRADIENT))
WEIGHTED = tl.constexpr(int(Weight.WEIGHTED))
TANGENT = tl.constexpr(int(Weight.TANGENT))
COST = tl.constexpr(int(Weight.COST))


@triton.jit(do_not_specialize=["n", "m", "d", "width", "columns", "blocks"])
def products_kernel(
    x, x_low, x_norm, y, y_low, y_norm, u, h, s, t, p, q, m0, m1, m2, m3, m4, m5, motion_scales, eps,
    row_counts, col_counts, scales, results, n, m, d, width, columns, blocks, batch_stride, row_stride, col_stride,
    FORM: tl.constexpr, FUNCTION: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr,
    WEIGHT: tl.constexpr, BY_DIFFERENCES: tl.constexpr, MINUS: tl.constexpr, PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """COLUMNS columns of the result of a block of rows, over one part of the pairs; ``results`` are (parts, B, n, k).

    With p and q laid out as (B, k, n) and (B, k, m) differences are summed BY_DIFFERENCES. Else q is (B, m, k), and if
    MINUS the product with it is taken from p (B, n, k) times the sum of the weights.
    """
    b, rows, first, last, sizes, operands, scale, own = begun(
        x, x_low, x_norm, y, y_low, y_norm, row_counts, col_counts, scales, n, m, d, blocks, batch_stride,
        FORM, D, RESIDENT, BM, BN,
    )  # fmt: skip
    strides = row_stride, col_stride
    lanes, k = tl.arange(0, BN), columns.to(tl.int64)
    h, t, p, q = h + b * ends(m, FORM), t + b * m, p + b * n * k, q + b * m * k
    motion = motion_of(m0, m1, m2, m3, m4, m5, b, sizes, width, FORM)
    eps_b = tl.load(eps + b)
    kappa = base_two(eps_b)
    its_u = entries(u + b * n, rows, -INF) * LOG2E
    its_s = entries(s + b * n, rows, 0.0)
    group = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    result = tl.zeros((BM, COLUMNS), eps_b.dtype)
    mass = tl.zeros((BM,), eps_b.dtype)
    for start in range(first, last, BN):
        cols = start, lanes, start + lanes < last
        scores = scores_of(h, cols, FORM)
        if WEIGHT == PLAN:
            z = exponents(
                its_u, scores, kappa, own, operands, sizes, strides, scale, rows, cols,
                FORM, FUNCTION, POWER, D, RESIDENT,
            )  # fmt: skip
        elif WEIGHT == COST:
            C = costs(own, operands, sizes, strides, scale, rows, cols, FORM, FUNCTION, POWER, D, RESIDENT)
            z = exponents_of_costs(its_u, scores, kappa, C)
        else:
            S = squares(own, operands, sizes, scale, rows, cols, FORM, D, RESIDENT)
            z = (its_u[:, None] + scores[None, :]) - kappa * costs_of_squares(S, POWER, FUNCTION)
        w = tl.exp2(z)
        if WEIGHT == COST:
            w = tl.where(w > 0, w * C, 0.0)
        elif WEIGHT == GRADIENT:
            w *= slopes(S, POWER, FUNCTION)
        elif WEIGHT == WEIGHTED:
            factor = (its_s[:, None] + entries(t, cols, 0.0)[None, :]) + z * LN2
            w = tl.where(w > 0, w * factor * slopes(S, POWER, FUNCTION), 0.0)
        elif WEIGHT == TANGENT:
            movement = movements(own, operands, motion, sizes, width, motion_scales + 2 * b, rows, cols, FORM, D)
            slope = slopes(S, POWER, FUNCTION)
            change = (its_s[:, None] + entries(t, cols, 0.0)[None, :]) - slope * movement / eps_b
            w = tl.where(w > 0, w * slope * (change + stretches(S, movement, POWER, FUNCTION)), 0.0)
        if BY_DIFFERENCES:
            for j in range(columns):
                differences = (
                    entries(p + sizes[0] * j, rows, 0.0)[:, None] - entries(q + sizes[1] * j, cols, 0.0)[None, :]
                )
                result += tl.where(group[None, :] == j, tl.sum(w * differences, 1)[:, None], 0.0)
        else:
            values = block_of(q, k, cols, group)
            result = tl.dot(w, values, result, input_precision=PRECISION, out_dtype=result.dtype)
            if MINUS:
                mass += tl.sum(w, 1)
    if MINUS and not BY_DIFFERENCES:
        result = mass[:, None] * block_of(p, k, rows, group) - result
    part = tl.program_id(1) * (tl.num_programs(0) // blocks).to(tl.int64) * n
    corner = results + (b * n + part + rows[0]) * k
    tl.store(
        corner + (rows[1].to(tl.int64)[:, None] * k + group[None, :]),
        result,
        mask=rows[2][:, None] & (group < k)[None, :],
    )


@triton.jit
def block_of(values, k, places, group):
    """Some rows and columns of values laid out as (·, k)."""
    first, lanes, mask = places
    corner = values + tl.cast(first, tl.int64) * k
    return tl.load(
        corner + (lanes.to(tl.int64)[:, None] * k + group[None, :]),
        mask=mask[:, None] & (group < k)[None, :],
        other=0.0,
    )
