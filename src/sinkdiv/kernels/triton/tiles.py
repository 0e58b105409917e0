"""A tile of costs between BM rows and BN columns, in registers. Every kernel of this package begins with it.

A program has a block of rows, which it loads once as far as they fit (`own_points`), and goes through the columns. Both
are given as (first, lanes, mask): the first index, the offsets from it, and which of them are real. A cost is formed in
one of the ways of `Form`; with s = |x−y|² it is s, √s or s^{p/2} (`Function`).
"""

from __future__ import annotations

import enum

import triton
import triton.language as tl


class Form(enum.IntEnum):
    """How s, or the cost itself, is formed."""

    DIFFERENCES = 0  # of few coordinates, unrolled; points (B, d, n)
    LOOP = 1  # of any number of coordinates; points (B, d, n)
    MATRIX = 2  # the cost is loaded; in place of points a matrix (B, n, m) of any strides
    HALVES = 3  # |x|² − 2xy + |y|², coordinates as sums of two float16; points (B, N, D), padded with zeros
    ROUNDED = 4  # the same, coordinates rounded to TF32


class Function(enum.IntEnum):
    """The cost as a function of s."""

    SQUARE = 0
    ROOT = 1
    POWER = 2


DIFFERENCES = tl.constexpr(int(Form.DIFFERENCES))
LOOP = tl.constexpr(int(Form.LOOP))
HALVES = tl.constexpr(int(Form.HALVES))
ROUNDED = tl.constexpr(int(Form.ROUNDED))
MATRIX = tl.constexpr(int(Form.MATRIX))
SQUARE = tl.constexpr(int(Function.SQUARE))
ROOT = tl.constexpr(int(Function.ROOT))

#: Points of products are padded to a multiple of this, so that the columns of a tile need no mask.
LONGEST = tl.constexpr(128)

#: Up to so many coordinates are scaled before they are subtracted. In more, their rounding would be too large.
SCALED = tl.constexpr(4)

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
INF = tl.constexpr(float("inf"))

#: Points are coincident if their squared distance is below the least normal number of float32.
TINY = tl.constexpr(2.0**-126)


@triton.jit
def program_rows(row_counts, blocks, BM: tl.constexpr):
    """The problem and the rows of this program."""
    block = tl.program_id(0)
    b = block // blocks
    first, lanes = (block % blocks) * BM, tl.arange(0, BM)
    return b.to(tl.int64), (first, lanes, first + lanes < tl.load(row_counts + b))


@triton.jit
def program_columns(col_counts, b, BN: tl.constexpr):
    """The columns that this program goes through: the first, and the end."""
    part, parts = tl.program_id(1), tl.num_programs(1)
    count = tl.load(col_counts + b)
    each = tl.cdiv(tl.cdiv(count, BN), parts) * BN
    return part * each, tl.minimum(count, (part + 1) * each)


@triton.jit
def sizes_of(n, m, d, FORM: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr):
    """(n, m, d) in 64 bits, d such that the compiler sees how points are aligned."""
    if FORM >= HALVES:
        if RESIDENT:
            return n.to(tl.int64), m.to(tl.int64), D
        else:
            return n.to(tl.int64), m.to(tl.int64), (d // D).to(tl.int64) * D
    else:
        return n.to(tl.int64), m.to(tl.int64), d.to(tl.int64)


@triton.jit
def ends(n, FORM: tl.constexpr):
    """The length of vectors that belong to points: padded for products."""
    if FORM >= HALVES:
        return tl.cdiv(n, LONGEST) * LONGEST
    else:
        return n


@triton.jit
def operands_of(x, x_low, x_norm, y, y_low, y_norm, b, sizes, batch_stride, FORM: tl.constexpr):
    """The operands of problem b, with pointers to it."""
    if FORM == MATRIX:
        return x + b * batch_stride, x_low, x_norm, y, y_low, y_norm
    else:
        n, m, d = ends(sizes[0], FORM), ends(sizes[1], FORM), sizes[2]
        return x + b * n * d, x_low + b * n * d, x_norm + b * n, y + b * m * d, y_low + b * m * d, y_norm + b * m


@triton.jit
def base_two(eps):
    """log₂e/ε, rounded once: exponents of base 2 are made with it."""
    numerator = tl.full((), LOG2E, eps.dtype)
    if eps.dtype == tl.float32:
        return tl.div_rn(numerator, eps)
    else:
        return numerator / eps


@triton.jit
def entries(vector, places, OTHER: tl.constexpr):
    """The entries of a vector at these places, and ``OTHER`` where the mask is false."""
    first, lanes, mask = places
    return tl.load(vector + (first + lanes), mask=mask, other=OTHER)


@triton.jit
def padded_entries(vector, places):
    """The entries of a padded vector at these places."""
    return tl.load(vector + (places[0] + places[1]))


@triton.jit
def scores_of(h, cols, FORM: tl.constexpr):
    """h_j in base 2; −∞ where there are no columns."""
    if FORM >= HALVES:
        return padded_entries(h, cols) * LOG2E
    else:
        return entries(h, cols, -INF) * LOG2E


@triton.jit
def coordinates(points, count, places, D: tl.constexpr):
    """The D coordinates of some points of (D, count), each a vector."""
    vectors = ()
    for k in tl.static_range(D):
        vectors += (entries(points + count * k, places, 0.0),)
    return vectors


@triton.jit
def own_points(operands, sizes, rows, FORM: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr):
    """What a program keeps of its rows' points."""
    x, x_low, x_norm, _, _, _ = operands
    own = ()
    if FORM == DIFFERENCES:
        own = coordinates(x, sizes[0], rows, D)
    if FORM >= HALVES:
        own = (entries(x_norm, rows, 0.0),)
        if RESIDENT:
            own += (row_vectors(x, rows, D, 0, D),)
            if FORM == HALVES:
                own += (row_vectors(x_low, rows, D, 0, D),)
    return own


@triton.jit
def begun(
    x, x_low, x_norm, y, y_low, y_norm, row_counts, col_counts, scales, n, m, d, blocks, batch_stride,
    FORM: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """What a program knows before its first column.

    The problem, the rows, the first column and the end, sizes, operands, their scale, and what it keeps of its rows.
    """
    b, rows = program_rows(row_counts, blocks, BM)
    first, last = program_columns(col_counts, b, BN)
    sizes = sizes_of(n, m, d, FORM, D, RESIDENT)
    operands = operands_of(x, x_low, x_norm, y, y_low, y_norm, b, sizes, batch_stride, FORM)
    own = own_points(operands, sizes, rows, FORM, D, RESIDENT)
    return b, rows, first, last, sizes, operands, tl.load(scales + b), own


@triton.jit
def row_vectors(points, rows, stride, start, D: tl.constexpr):
    """Coordinates start … start + D of points laid out as (n, stride): (rows, D)."""
    first, lanes, mask = rows
    # One address of 64 bits; offsets within a tile need 32.
    corner = points + tl.cast(first, tl.int64) * stride + start
    return tl.load(corner + (lanes[:, None] * stride + tl.arange(0, D)[None, :]), mask=mask[:, None], other=0.0)


@triton.jit
def column_vectors(points, cols, stride, start, D: tl.constexpr):
    """The same transposed, of padded points: (D, columns)."""
    first, lanes, _ = cols
    corner = points + tl.cast(first, tl.int64) * stride + start
    return tl.load(corner + (lanes[None, :] * stride + tl.arange(0, D)[:, None]))


@triton.jit
def squares(
    own, operands, sizes, scale, rows, cols, FORM: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr
):  # fmt: skip
    """s = |x_i − y_j|², (BM, BN); ``scale`` is −2 over the factors that the coordinates of x and y carry."""
    x, _, _, y, _, y_norm = operands
    n, m, d = sizes
    if FORM == DIFFERENCES:
        others = coordinates(y, m, cols, D)
        s = own[0][:, None] - others[0][None, :]
        s = s * s
        for k in tl.static_range(1, D):
            difference = own[k][:, None] - others[k][None, :]
            s += difference * difference
    elif FORM == LOOP:
        s = tl.zeros((rows[1].shape[0], cols[1].shape[0]), x.dtype.element_ty)
        for k in range(d):
            difference = entries(x + n * k, rows, 0.0)[:, None] - entries(y + m * k, cols, 0.0)[None, :]
            s += difference * difference
    else:
        products = inner_products(own, operands, d, rows, cols, FORM, D, RESIDENT)
        # Rounding may make it negative, which no squared distance is.
        s = tl.maximum(products * scale + (own[0][:, None] + padded_entries(y_norm, cols)[None, :]), 0.0)
    return s


@triton.jit
def inner_products(
    own, operands, d, rows, cols, FORM: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr
):  # fmt: skip
    """x_i·y_j, (BM, BN)."""
    if RESIDENT:
        return kept_products(own, operands, cols, FORM, D)
    else:
        return streamed_products(operands, d, rows, cols, FORM, D)


@triton.jit
def kept_products(own, operands, cols, FORM: tl.constexpr, D: tl.constexpr):
    """x_i·y_j, (BM, BN), with all D coordinates of x_i in ``own``."""
    _, _, _, y, y_low, _ = operands
    right = column_vectors(y, cols, D, 0, D)
    if FORM == HALVES:
        right_low = column_vectors(y_low, cols, D, 0, D)
        # The small terms come first, so that less of them is lost.
        return tl.dot(own[1], right, tl.dot(own[1], right_low, tl.dot(own[2], right)))
    else:
        return tl.dot(own[1], right, input_precision="tf32")


@triton.jit
def streamed_products(operands, d, rows, cols, FORM: tl.constexpr, D: tl.constexpr):
    """x_i·y_j, (BM, BN), D coordinates at a time; d is a multiple of D."""
    x, x_low, _, y, y_low, _ = operands
    stride = (d // D).to(tl.int32) * D
    products = tl.zeros((rows[1].shape[0], cols[1].shape[0]), tl.float32)
    for start in range(0, stride, D):
        left, right = row_vectors(x, rows, stride, start, D), column_vectors(y, cols, stride, start, D)
        if FORM == HALVES:
            products = tl.dot(row_vectors(x_low, rows, stride, start, D), right, products)
            products = tl.dot(left, column_vectors(y_low, cols, stride, start, D), products)
            products = tl.dot(left, right, products)
        else:
            products = tl.dot(left, right, products, input_precision="tf32")
    return products


@triton.jit
def costs_of_squares(s, POWER: tl.constexpr, FUNCTION: tl.constexpr):
    """The costs s, √s or s^{p/2}."""
    if FUNCTION == SQUARE:
        return s
    elif FUNCTION == ROOT:
        return tl.sqrt(s)
    else:
        return tl.where(s > 0, tl.exp2(0.5 * POWER * tl.log2(s)), 0.0)


@triton.jit
def slopes(s, POWER: tl.constexpr, FUNCTION: tl.constexpr):
    """φ with ∂c/∂x = φ·(x−y): 2, 1/√s, p·s^{p/2−1}; 0 at coincident points but for squares."""
    if FUNCTION == SQUARE:
        return tl.full(s.shape, 2.0, s.dtype)
    elif FUNCTION == ROOT:
        return tl.where(s >= TINY, 1.0 / tl.sqrt(s), 0.0)
    else:
        return tl.where(s >= TINY, POWER * tl.exp2((0.5 * POWER - 1.0) * tl.log2(s)), 0.0)


@triton.jit
def stretches(s, movement, POWER: tl.constexpr, FUNCTION: tl.constexpr):
    """How fast log φ changes as points move: (p−2)·(x−y)·(dx−dy)/s; 0 at coincident points."""
    if FUNCTION == SQUARE:
        return tl.zeros(s.shape, s.dtype)
    else:
        return tl.where(s >= TINY, (POWER - 2.0) * movement / s, 0.0)


@triton.jit
def costs(
    own, operands, sizes, strides, scale, rows, cols,
    FORM: tl.constexpr, FUNCTION: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr,
):  # fmt: skip
    """A tile of costs, (BM, BN). Its entries beyond the masks are finite."""
    if FORM == MATRIX:
        row_stride, col_stride = strides
        corner = operands[0] + tl.cast(rows[0], tl.int64) * row_stride + tl.cast(cols[0], tl.int64) * col_stride
        places = rows[1].to(tl.int64)[:, None] * row_stride + cols[1].to(tl.int64)[None, :] * col_stride
        return tl.load(corner + places, mask=rows[2][:, None] & cols[2][None, :], other=0.0)
    else:
        s = squares(own, operands, sizes, scale, rows, cols, FORM, D, RESIDENT)
        return costs_of_squares(s, POWER, FUNCTION)


@triton.jit
def exponents_of_costs(row_terms, scores, kappa, C):
    """row_terms_i + scores_j − κ C_ij, (BM, BN), all in base 2. Where κ = 0, for ε = ∞, costs count for nothing,
    even those that are ∞."""
    free = row_terms[:, None] + scores[None, :]
    return tl.where(kappa > 0, free - kappa * C, free)


@triton.jit
def exponents(
    row_terms, scores, kappa, own, operands, sizes, strides, scale, rows, cols,
    FORM: tl.constexpr, FUNCTION: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, RESIDENT: tl.constexpr,
):  # fmt: skip
    """row_terms_i + scores_j − κ C_ij, (BM, BN), all in base 2."""
    if FORM >= HALVES:
        # Norms are added to the terms of rows and columns. A pair then costs two operations besides the products.
        products = inner_products(own, operands, sizes[2], rows, cols, FORM, D, RESIDENT)
        row_terms -= kappa * own[0]
        scores -= kappa * padded_entries(operands[5], cols)
        return (row_terms[:, None] + scores[None, :]) - (kappa * scale) * products
    elif FORM == DIFFERENCES and FUNCTION == SQUARE and D <= SCALED:
        # Coordinates are in units of √ε. Each then costs a pair two operations, and no multiplication is left.
        root = tl.sqrt(kappa)
        others = coordinates(operands[3], sizes[1], cols, D)
        z = row_terms[:, None] + scores[None, :]
        for k in tl.static_range(D):
            difference = (own[k] * root)[:, None] - (others[k] * root)[None, :]
            z -= difference * difference
        return z
    else:
        C = costs(own, operands, sizes, strides, scale, rows, cols, FORM, FUNCTION, POWER, D, RESIDENT)
        return (row_terms[:, None] + scores[None, :]) - kappa * C


@triton.jit
def motion_of(m0, m1, m2, m3, m4, m5, b, sizes, width, FORM: tl.constexpr):
    """What `movements` reads, with pointers to problem b.

    Of points that are subtracted: x, y, dx, dy, laid out as (B, width, n) and (B, width, m). Of those that are
    multiplied: the operands of dx, as those of x, with x·dx in place of its norm; then those of dy.
    """
    if FORM >= HALVES:
        n, m, d = ends(sizes[0], FORM), ends(sizes[1], FORM), sizes[2]
        return m0 + b * n * d, m1 + b * n * d, m2 + b * n, m3 + b * m * d, m4 + b * m * d, m5 + b * m
    else:
        n, m, wide = sizes[0], sizes[1], width.to(tl.int64)
        return m0 + b * n * wide, m1 + b * m * wide, m2 + b * n * wide, m3 + b * m * wide, m4, m5


@triton.jit
def movements(own, operands, motion, sizes, width, scales, rows, cols, FORM: tl.constexpr, D: tl.constexpr):
    """(x_i − y_j)·(dx_i − dy_j), (BM, BN)."""
    n, m, d = sizes
    if FORM >= HALVES:
        x, x_low, _, y, y_low, _ = operands
        dx, dx_low, dx_dots, dy, dy_low, dy_dots = motion
        still = inner_products(own, (x, x_low, x, dy, dy_low, x), d, rows, cols, FORM, D, False)
        moved = inner_products(own, (dx, dx_low, x, y, y_low, x), d, rows, cols, FORM, D, False)
        dots = entries(dx_dots, rows, 0.0)[:, None] + padded_entries(dy_dots, cols)[None, :]
        return dots - tl.load(scales) * still - tl.load(scales + 1) * moved
    else:
        x, y, dx, dy, _, _ = motion
        total = tl.zeros((rows[1].shape[0], cols[1].shape[0]), x.dtype.element_ty)
        for k in range(width):
            difference = entries(x + n * k, rows, 0.0)[:, None] - entries(y + m * k, cols, 0.0)[None, :]
            movement = entries(dx + n * k, rows, 0.0)[:, None] - entries(dy + m * k, cols, 0.0)[None, :]
            total += difference * movement
        return total
