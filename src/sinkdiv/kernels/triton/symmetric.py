"""The sums of a softmin between points and themselves, from each pair of tiles once.

With a guess w of the softmin of h, and r_j = exp(h_j − w_j/ε), the sums Σ_j exp(h_j + (w_i − C_ij)/ε) are Σ_j r_j E_ij
with a symmetric E_ij = exp((w_i + w_j − C_ij)/ε): its exponentials, half as many, serve a tile and its mirror image.
They are added atomically, so their last digits may change from run to run.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sinkdiv.kernels.triton.tiles import INF, LOG2E, base_two, entries, exponents, operands_of, own_points, sizes_of

#: Weights between these, in base 2, are normal numbers. Where the factor of such a weight underflows, their product is
#: too small to change a sum that is large enough (`softmin.LEAST`).
LIGHTEST = tl.constexpr(-120.0)
HEAVIEST = tl.constexpr(20.0)


@triton.jit
def weights_near(scores, near):
    """r_j, and NaN where it is out of bounds: a sum that is NaN is computed again."""
    exponents = scores - near
    inside = (exponents >= LIGHTEST) & (exponents <= HEAVIEST)
    return tl.where(scores == -INF, 0.0, tl.where(inside, tl.exp2(exponents), float("nan")))


@triton.jit(do_not_specialize=["n", "m", "d", "blocks"])
def symmetric_sums_kernel(
    x, x_low, x_norm, y, y_low, y_norm, h, near, eps, row_counts, col_counts, scales, sums,
    n, m, d, blocks, batch_stride, row_stride, col_stride,
    FORM: tl.constexpr, FUNCTION: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Add to ``sums`` (B, n) the tiles of two blocks of rows with themselves and with all later blocks.

    The two blocks are the p-th and the p-th last, so that all programs have equally many tiles. The parts take
    the tiles of columns in turn.
    """
    pairs_of_blocks = (blocks + 1) // 2
    b = (tl.program_id(0) // pairs_of_blocks).to(tl.int64)
    mine = tl.program_id(0) % pairs_of_blocks
    part, parts = tl.program_id(1), tl.num_programs(1)
    count = tl.load(row_counts + b)
    sizes, strides = sizes_of(n, m, d, FORM, D, RESIDENT), (row_stride, col_stride)
    operands = operands_of(x, x_low, x_norm, y, y_low, y_norm, b, sizes, batch_stride, FORM)
    scale = tl.load(scales + b)
    eps_b = tl.load(eps + b)
    kappa = base_two(eps_b)
    h, near, sums = h + b * n, near + b * n, sums + b * n
    lanes = tl.arange(0, BN)
    # If the number of blocks is odd, the block in the middle is its own partner, and is done once.
    for block in range(
        mine, tl.where(2 * mine + 1 == blocks, mine + 1, blocks - mine), tl.maximum(blocks - 1 - 2 * mine, 1)
    ):
        rows = block * BM, tl.arange(0, BM), block * BM + tl.arange(0, BM) < count
        own = own_points(operands, sizes, rows, FORM, D, RESIDENT)
        near_i = entries(near, rows, 0.0)
        weights_i = weights_near(entries(h, rows, -INF) * LOG2E, kappa * near_i)
        total = tl.zeros((BM, BN), eps_b.dtype)
        for start in range((block + part) * BM, count, parts * BN):
            cols = start, lanes, start + lanes < count
            near_j = entries(near, cols, 0.0)
            weights_j = weights_near(entries(h, cols, -INF) * LOG2E, kappa * near_j)
            E = tl.exp2(
                exponents(
                    kappa * near_i, kappa * near_j, kappa, own, operands, sizes, strides, scale, rows, cols,
                    FORM, FUNCTION, POWER, D, RESIDENT,
                )
            )  # fmt: skip
            total += E * weights_j[None, :]
            if start > block * BM:
                mirrored = tl.sum(E * weights_i[:, None], 0)
                tl.atomic_add(sums + start + lanes, mirrored, mask=cols[2], sem="relaxed")
        tl.atomic_add(sums + rows[0] + rows[1], tl.sum(total, 1), mask=rows[2], sem="relaxed")
