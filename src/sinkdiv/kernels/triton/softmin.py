"""The softmin −ε log Σ_j exp(h_j − C_ij/ε), and its limit min_j (C_ij − g_j).

With a guess w of the answer the sum Σ_j exp(h_j + (w_i − C_ij)/ε) needs no running maximum, hence neither a reduction
nor a rescaling for each tile. It is right if it stays well within the range of float32. If it does not,
because the guess was poor, the program begins again with a maximum. So a poor guess changes no result, and the host
need not check it.
"""

from __future__ import annotations

import enum

import triton
import triton.language as tl

from sinkdiv.kernels.triton.tiles import (
    INF,
    LN2,
    base_two,
    begun,
    costs,
    ends,
    entries,
    exponents,
    scores_of,
)


class Start(enum.IntEnum):
    """What is known when a softmin begins."""

    COLD = 0  # nothing
    NEAR = 1  # a guess
    SUMMED = 2  # a guess, and the sums that belong to it


NEAR = tl.constexpr(int(Start.NEAR))
SUMMED = tl.constexpr(int(Start.SUMMED))

#: Sums between these are right: no term has overflowed, and terms that have underflowed are below the last place.
LEAST = tl.constexpr(2.0**-60)
MOST = tl.constexpr(2.0**100)


@triton.jit(do_not_specialize=["n", "m", "d", "blocks"])
def softmin_kernel(
    x, x_low, x_norm, y, y_low, y_norm, h, near, eps, row_counts, col_counts, scales, bases, sums,
    n, m, d, blocks, batch_stride, row_stride, col_stride,
    FORM: tl.constexpr, FUNCTION: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr,
    START: tl.constexpr, WHOLE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The softmins of a block of rows, over one part of the columns.

    If the part is the WHOLE, ``bases`` (B, n) are the softmins. Else base_i − ε log sum_i is the softmin over the part,
    and ``bases`` and ``sums`` are (parts, B, n). ``near`` (B, n) is the guess, if there is one, and then base_i. Only
    when all parts are known can its sums be checked: they are added up to (B, n), and a second launch takes them as
    ``sums`` (SUMMED). Rows beyond a problem's count are not written.
    """
    b, rows, first, last, sizes, operands, scale, own = begun(
        x, x_low, x_norm, y, y_low, y_norm, row_counts, col_counts, scales, n, m, d, blocks, batch_stride,
        FORM, D, RESIDENT, BM, BN,
    )  # fmt: skip
    strides = row_stride, col_stride
    lanes = tl.arange(0, BN)
    h, near, bases, sums = h + b * ends(m, FORM), near + b * n, bases + b * n, sums + b * n
    eps_b = tl.load(eps + b)
    kappa = base_two(eps_b)
    base = tl.zeros((BM,), eps_b.dtype)
    total = tl.zeros((BM,), eps_b.dtype)
    lost = True
    if START >= NEAR:
        base = entries(near, rows, 0.0)
    if START == NEAR:
        terms = tl.zeros((BM, BN), eps_b.dtype)
        for start in range(first, last, BN):
            cols = start, lanes, start + lanes < last
            scores = scores_of(h, cols, FORM)
            z = exponents(
                kappa * base, scores, kappa, own, operands, sizes, strides, scale, rows, cols,
                FORM, FUNCTION, POWER, D, RESIDENT,
            )  # fmt: skip
            terms += tl.exp2(z)
        total = tl.sum(terms, 1)
        lost = False
    if START == SUMMED:
        total = entries(sums, rows, 0.0)
    if START >= NEAR and WHOLE:
        kept = ((total > LEAST) & (total < MOST)) | (rows[2] == 0)
        lost = tl.min(kept.to(tl.int32), 0) == 0
    if lost:
        peak = tl.full((BM,), -INF, eps_b.dtype)
        terms = tl.zeros((BM, BN), eps_b.dtype)
        for start in range(first, last, BN):
            cols = start, lanes, start + lanes < last
            scores = scores_of(h, cols, FORM)
            z = exponents(
                tl.zeros((BM,), eps_b.dtype), scores, kappa, own, operands, sizes, strides, scale, rows, cols,
                FORM, FUNCTION, POWER, D, RESIDENT,
            )  # fmt: skip
            higher = tl.maximum(peak, tl.max(z, 1))
            shift = tl.where(higher == -INF, 0.0, higher)
            terms = terms * tl.exp2(peak - shift)[:, None] + tl.exp2(z - shift[:, None])
            peak = higher
        total = tl.sum(terms, 1)
        base = -peak * (eps_b * LN2)
    places = rows[0] + rows[1]
    if WHOLE:
        # Rows all of whose pairs are forbidden have no mass. Their softmin has no effect, and is 0 as in the reference.
        tl.store(bases + places, tl.where(total == 0, 0.0, base - (eps_b * LN2) * tl.log2(total)), mask=rows[2])
    else:
        part = tl.program_id(1) * (tl.num_programs(0) // blocks).to(tl.int64) * n
        tl.store(bases + part + places, base, mask=rows[2])
        tl.store(sums + part + places, total, mask=rows[2])


@triton.jit(do_not_specialize=["total", "n", "parts"])
def joined_kernel(bases, sums, eps, softmins, total, n, parts, BLOCK: tl.constexpr):
    """The softmins (B, n) from those over parts of the columns; ``total`` is B·n."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < total
    eps_b = tl.load(eps + at // n, mask=mask, other=1.0)
    kappa = base_two(eps_b)
    base = tl.full((BLOCK,), INF, eps_b.dtype)
    sum_ = tl.zeros((BLOCK,), eps_b.dtype)
    for part in range(parts):
        place = part * total + at
        its_base = tl.load(bases + place, mask=mask, other=0.0)
        its_sum = tl.load(sums + place, mask=mask, other=1.0)
        # A part without mass has the base ∞.
        lower = tl.minimum(base, its_base)
        zero = tl.where(lower == INF, 0.0, lower)
        sum_ = sum_ * tl.exp2(kappa * (zero - base)) + its_sum * tl.exp2(kappa * (zero - its_base))
        base = lower
    tl.store(softmins + at, tl.where(sum_ == 0, 0.0, base - (eps_b * LN2) * tl.log2(sum_)), mask=mask)


@triton.jit(do_not_specialize=["n", "m", "d", "blocks"])
def ctransform_kernel(
    x, x_low, x_norm, y, y_low, y_norm, g, row_counts, col_counts, scales, minima,
    n, m, d, blocks, batch_stride, row_stride, col_stride,
    FORM: tl.constexpr, FUNCTION: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """min_j (C_ij − g_j) of a block of rows over one part of the columns; ``minima`` are (parts, B, n)."""
    b, rows, first, last, sizes, operands, scale, own = begun(
        x, x_low, x_norm, y, y_low, y_norm, row_counts, col_counts, scales, n, m, d, blocks, batch_stride,
        FORM, D, RESIDENT, BM, BN,
    )  # fmt: skip
    strides = row_stride, col_stride
    lanes = tl.arange(0, BN)
    g += b * m
    least = tl.full((BM, BN), INF, g.dtype.element_ty)
    for start in range(first, last, BN):
        cols = start, lanes, start + lanes < last
        C = costs(own, operands, sizes, strides, scale, rows, cols, FORM, FUNCTION, POWER, D, RESIDENT)
        least = tl.minimum(least, C - entries(g, cols, -INF)[None, :])
    part = tl.program_id(1) * (tl.num_programs(0) // blocks).to(tl.int64) * n
    tl.store(minima + b * n + part + rows[0] + rows[1], tl.min(least, 1), mask=rows[2])
