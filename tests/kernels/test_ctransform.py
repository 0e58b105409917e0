"""The c-transform min_j C_ij − g_j: against brute force, bit for bit where costs are integers."""

import math

import numpy as np
import pytest
import torch

from problems import cloud, direction
from sinkdiv.costs import find_cost, power
from sinkdiv.geometry import CloudGeometry, MatrixGeometry
from sinkdiv.kernels import native, of_matrix, reference

INSTRUCTION_SETS = native._native.supported_instruction_sets() if native.available else []
SHAPES = [(1, 1, 1, 1), (1, 1, 7, 3), (2, 7, 1, 2), (2, 13, 16, 4), (1, 49, 17, 5), (1, 97, 1025, 9), (3, 5, 513, 65)]


@pytest.fixture(params=["reference", "tiles", *INSTRUCTION_SETS])
def kernels(request, monkeypatch):
    """(PointReductions, MatrixReductions) of the specification, whole and in tiles, and of every instruction set."""
    if request.param not in INSTRUCTION_SETS:
        monkeypatch.setattr(reference, "TILE_ENTRIES", 64 if request.param == "tiles" else reference.TILE_ENTRIES)
        yield reference.PointReductions, reference.MatrixReductions
        return
    before = native.instruction_set()
    native._native.use_instruction_set(request.param)
    yield native.PointReductions, native.MatrixReductions
    native._native.use_instruction_set(before)


def integers(seed, *shape, dtype, most=20):
    """Small integers, whose sums, products and squares are exact in both dtypes, with many ties."""
    return torch.tensor(np.random.default_rng(seed).integers(-most, most + 1, shape), dtype=dtype)


def silenced(g, seed):
    """Some points without weight, and in the last problem but the first point all."""
    g = g.masked_fill(torch.tensor(np.random.default_rng(seed).random(g.shape) < 0.3), -math.inf)
    g[-1, 1:] = -math.inf
    return g


def brute_force(C, g):
    """In NumPy, a row at a time."""
    C, g = C.double().numpy(), g.double().numpy()
    return torch.tensor(np.array([[np.min(row - sent) for row in own] for own, sent in zip(C, g, strict=True)]))


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_of_points_exactly(kernels, dtype, shape, silent):
    """Squared distances of integers, in dimensions with and without products."""
    batch, n, m, d = shape
    x, y = integers(1, batch, n, d, dtype=dtype), integers(2, batch, m, d, dtype=dtype)
    g = integers(3, batch, m, dtype=dtype, most=400)
    g = silenced(g, 4) if silent else g
    C = (x[:, :, None].double() - y[:, None].double()).square().sum(-1)
    found = kernels[0](x, y, find_cost("sqeuclidean")).ctransform(g)
    assert found.dtype == dtype
    assert torch.equal(found.double(), brute_force(C, g))


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_matrix_exactly(kernels, dtype, shape, silent):
    batch, n, m, _ = shape
    C, g = integers(5, batch, n, m, dtype=dtype), integers(6, batch, m, dtype=dtype)
    g = silenced(g, 7) if silent else g
    assert torch.equal(kernels[1](C).ctransform(g).double(), brute_force(C, g))


@pytest.mark.parametrize("shape", SHAPES)
def test_of_distances(kernels, dtype, shape):
    """A relative error of a few units in the last place of the terms of the difference."""
    batch, n, m, d = shape
    x, y = cloud(8, n, d, batch=batch, dtype=dtype), cloud(9, m, d, batch=batch, dtype=dtype)
    g = direction(10, (batch, m)).to(dtype)
    C = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")
    found = kernels[0](x, y, find_cost("euclidean")).ctransform(g)
    atol = 4 * torch.finfo(dtype).eps * float(C.max() + g.abs().max())
    torch.testing.assert_close(found.double(), brute_force(C, g), rtol=0, atol=atol)


def test_a_row_that_nobody_sends_to(kernels, dtype):
    C = integers(11, 2, 4, 40, dtype=dtype)
    g = torch.full((2, 40), -math.inf, dtype=dtype)
    assert torch.equal(kernels[1](C).ctransform(g), torch.full((2, 4), math.inf, dtype=dtype))


def test_forbidden_pairs(dtype):
    """+∞ costs are never the least, unless there is nothing else."""
    C, g = integers(12, 2, 6, 9, dtype=dtype), silenced(integers(13, 2, 9, dtype=dtype), 14)
    C[:, ::2, ::3] = math.inf
    C[:, 3] = math.inf
    found = of_matrix(C, forbids=True).ctransform(g)
    assert torch.equal(found.double(), brute_force(C, g))
    assert bool(found[:, 3].isposinf().all())


@pytest.mark.parametrize("cost", [find_cost("sqeuclidean"), find_cost("euclidean"), power(1.5)])
def test_sides_of_geometries(route, cost):
    """Side 1 is the transposed problem; a geometry of points is that of their matrix; f^ccc = f^c, a known property."""
    x, y, g, f = cloud(15, 9, 3, batch=2), cloud(16, 8, 3, batch=2), direction(17, (2, 8)), direction(18, (2, 9))
    points, matrix = CloudGeometry(x, y, cost), MatrixGeometry(cost.matrix(x, y))
    C = cost.matrix(x, y)
    for geometry in (points, matrix):
        rows, columns = geometry.ctransform(g, 0), geometry.ctransform(f, 1)
        torch.testing.assert_close(rows, brute_force(C, g), rtol=0, atol=1e-13)
        torch.testing.assert_close(columns, brute_force(C.mT, f), rtol=0, atol=1e-13)
        again = geometry.ctransform(geometry.ctransform(rows, 1), 0)
        torch.testing.assert_close(again, rows, rtol=0, atol=1e-13)
