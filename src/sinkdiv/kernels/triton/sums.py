"""Sums over the pairs of a plan P_ij = exp(u_i + h_j − C_ij/ε): over the columns, and in the same sweep over the rows.

One exponential serves both sums. The sums over the rows are made by atomic additions of several programs, whose order,
and so the last digits, may change from run to run.
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
)


class Term(enum.IntEnum):
    """What is added up."""

    MASS = 0  # P_ij
    COST = 1  # P_ij C_ij
    WEIGHTED = 2  # P_ij (s_i + t_j + log P_ij)
    TANGENT = 3  # P_ij Ċ_ij, where Ċ is how fast the cost changes as x moves along dx and y along dy
    PRIMAL = 4  # b_j D_ij (C_ij + ε log D_ij) with D_ij = P_ij + s_i t_j and b_j in ``weights``


MASS = tl.constexpr(int(Term.MASS))
COST = tl.constexpr(int(Term.COST))
WEIGHTED = tl.constexpr(int(Term.WEIGHTED))
TANGENT = tl.constexpr(int(Term.TANGENT))
PRIMAL = tl.constexpr(int(Term.PRIMAL))


@triton.jit(do_not_specialize=["n", "m", "d", "width", "blocks"])
def sums_kernel(
    x, x_low, x_norm, y, y_low, y_norm, u, h, s, t, weights, m0, m1, m2, m3, m4, m5, motion_scales, eps,
    row_counts, col_counts, scales, row_sums, col_sums,
    n, m, d, width, blocks, batch_stride, row_stride, col_stride,
    FORM: tl.constexpr, FUNCTION: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr,
    TERM: tl.constexpr, BOTH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The terms of a block of rows and one part of the columns.

    ``row_sums`` are (parts, B, n); if BOTH, the terms are also added to ``col_sums`` (B, m). ``m0`` to ``m5`` and
    ``motion_scales`` (B, 2) are the motion of TANGENT (`tiles.motion_of`).
    """
    b, rows, first, last, sizes, operands, scale, own = begun(
        x, x_low, x_norm, y, y_low, y_norm, row_counts, col_counts, scales, n, m, d, blocks, batch_stride,
        FORM, D, RESIDENT, BM, BN,
    )  # fmt: skip
    strides = row_stride, col_stride
    lanes = tl.arange(0, BN)
    h, t, weights = h + b * ends(m, FORM), t + b * m, weights + b * m
    motion = motion_of(m0, m1, m2, m3, m4, m5, b, sizes, width, FORM)
    eps_b = tl.load(eps + b)
    kappa = base_two(eps_b)
    its_u = entries(u + b * n, rows, -INF) * LOG2E
    its_s = entries(s + b * n, rows, 0.0)
    total = tl.zeros((BM, BN), eps_b.dtype)
    for start in range(first, last, BN):
        cols = start, lanes, start + lanes < last
        scores = scores_of(h, cols, FORM)
        if TERM == MASS:
            z = exponents(
                its_u, scores, kappa, own, operands, sizes, strides, scale, rows, cols,
                FORM, FUNCTION, POWER, D, RESIDENT,
            )  # fmt: skip
        elif TERM == TANGENT:
            S = squares(own, operands, sizes, scale, rows, cols, FORM, D, RESIDENT)
            C = costs_of_squares(S, POWER, FUNCTION)
            z = (its_u[:, None] + scores[None, :]) - kappa * C
        elif TERM == COST:
            C = costs(own, operands, sizes, strides, scale, rows, cols, FORM, FUNCTION, POWER, D, RESIDENT)
            z = exponents_of_costs(its_u, scores, kappa, C)
        else:
            C = costs(own, operands, sizes, strides, scale, rows, cols, FORM, FUNCTION, POWER, D, RESIDENT)
            z = (its_u[:, None] + scores[None, :]) - kappa * C
        terms = tl.exp2(z)
        if TERM == COST:
            terms = tl.where(terms > 0, terms * C, 0.0)
        elif TERM == WEIGHTED:
            factor = (its_s[:, None] + entries(t, cols, 0.0)[None, :]) + z * LN2
            terms = tl.where(terms > 0, terms * factor, 0.0)
        elif TERM == TANGENT:
            movement = movements(own, operands, motion, sizes, width, motion_scales + 2 * b, rows, cols, FORM, D)
            terms = terms * slopes(S, POWER, FUNCTION) * movement
        elif TERM == PRIMAL:
            density = terms + its_s[:, None] * entries(t, cols, 0.0)[None, :]
            entropy = (eps_b * LN2) * tl.log2(density)
            terms = tl.where(density > 0, entries(weights, cols, 0.0)[None, :] * density * (C + entropy), 0.0)
        total += terms
        if BOTH:
            tl.atomic_add(col_sums + b * m + start + lanes, tl.sum(terms, 0), mask=cols[2], sem="relaxed")
    part = tl.program_id(1) * (tl.num_programs(0) // blocks).to(tl.int64) * n
    tl.store(row_sums + b * n + part + rows[0] + rows[1], tl.sum(total, 1), mask=rows[2])
