"""The costs themselves, where a matrix of them is wanted: formed once for a small problem that many passes read."""

from __future__ import annotations

import triton
import triton.language as tl

from sinkdiv.kernels.triton.tiles import begun, costs


@triton.jit(do_not_specialize=["n", "m", "d", "blocks"])
def costs_kernel(
    x, x_low, x_norm, y, y_low, y_norm, row_counts, col_counts, scales, matrix,
    n, m, d, blocks, batch_stride, row_stride, col_stride,
    FORM: tl.constexpr, FUNCTION: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The costs (B, n, m) of a block of rows and one part of the columns."""
    b, rows, first, last, sizes, operands, scale, own = begun(
        x, x_low, x_norm, y, y_low, y_norm, row_counts, col_counts, scales, n, m, d, blocks, batch_stride,
        FORM, D, RESIDENT, BM, BN,
    )  # fmt: skip
    strides = row_stride, col_stride
    lanes = tl.arange(0, BN)
    corner = matrix + (b * sizes[0] + rows[0]) * sizes[1]
    for start in range(first, last, BN):
        cols = start, lanes, start + lanes < last
        C = costs(own, operands, sizes, strides, scale, rows, cols, FORM, FUNCTION, POWER, D, RESIDENT)
        places = rows[1].to(tl.int64)[:, None] * sizes[1] + (start + lanes)[None, :]
        tl.store(corner + places, C, mask=rows[2][:, None] & cols[2][None, :])
