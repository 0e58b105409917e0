"""Streaming: no tensor of n × m entries, in a solve, its derivative, its certificate or its products."""

import pytest
import torch

import sinkdiv
from allocations import Largest
from problems import cloud, weights
from sinkdiv.costs import find_cost
from sinkdiv.geometry import CloudGeometry, whole
from sinkdiv.geometry import cloud as cloud_geometry
from sinkdiv.kernels import reference
from sinkdiv.solvers.anderson import DEPTH

N, M, TILE = 90, 70, 700


@pytest.fixture(params=["native", "reference"])
def small_tiles(request, monkeypatch):
    if request.param == "reference":
        request.getfixturevalue("without_native")
    monkeypatch.setattr(reference, "TILE_ENTRIES", TILE)
    monkeypatch.setattr(cloud_geometry, "KEPT_ENTRIES", TILE)
    monkeypatch.setattr(whole, "ENTRIES", TILE)


def use_everything(x, y, a, b, **options):
    d = sinkdiv.solve_divergence(x, y, a, b, eps=0.5, **options)
    d.value.sum().backward()
    with torch.no_grad():
        assert torch.isfinite(d.sharp).all()
        assert len(d.bounds) == 2
        assert d.ab.apply(y).shape == x.shape
        assert d.ab.apply_transpose(x).shape == y.shape
        assert d.ab.barycentric_map().shape == x.shape
        assert d.ab.potentials_at(x).shape == a.shape
        assert torch.isfinite(d.ab.marginal_error).all()


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("rho", [None, 1.0])
@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("d", [3, 12])
def test_nothing_larger_than_a_tile_or_the_data(small_tiles, name, d, rho, batch):
    """Tiles hold at most TILE_ENTRIES costs over the whole batch."""
    x, y = cloud(190, N, d, batch=batch).requires_grad_(), cloud(191, M, d, batch=batch).requires_grad_()
    a, b = weights(190, N, batch=batch).requires_grad_(), weights(191, M, batch=batch).requires_grad_()
    with Largest() as largest:
        use_everything(x, y, a, b, cost=name, rho=rho)
    # The points of both sides together, say of x and x, are the largest data; solvers keep pairs of potentials.
    assert largest.entries <= max(TILE, 2 * N * max(d, DEPTH) * (batch or 1))
    assert largest.entries < N * M


@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("d", [3, 12])
def test_passes_of_derivatives_hold_one_tile_at_a_time(small_tiles, name, d):
    """Those that no value and no first derivative asks for."""
    x, y = cloud(198, N, d)[None], cloud(199, M, d)[None]
    u, h, eps = (torch.ones(1, size, dtype=torch.float64) for size in (N, M, 1))
    geometry = CloudGeometry(x, y, find_cost(name))
    with Largest() as largest:
        geometry.weighted_marginals(u, h, eps, u, h)
        geometry.tangent_marginals(u, h, eps, x, y)
        geometry.weighted_gradients(u, h, eps, u, h, (True, True))
        for side in (0, 1):
            geometry.gradient_tangent(u, h, eps, u, h, x, y, side)
    # A product of points may carry their squares along, in two more columns.
    assert largest.entries <= max(TILE, N * (d + 2))


@pytest.mark.parametrize("kernel", ["energy", "gaussian"])
@pytest.mark.parametrize("batch", [None, 2])
def test_kernel_losses_hold_one_block_at_a_time(small_tiles, kernel, batch):
    """Backward included: the differences (B, r, m, d) of a block are rebuilt, never kept."""
    x, y = cloud(192, N, 3, batch=batch).requires_grad_(), cloud(193, M, 3, batch=batch).requires_grad_()
    with Largest() as largest:
        sinkdiv.mmd(x, y, kernel=kernel, blur=None if kernel == "energy" else 1.0).sum().backward()
    # Where one row of differences is larger than a tile, the block is one row.
    assert largest.entries <= max(TILE, N * 3 * (batch or 1))


def test_small_problems_pay_for_their_distances_once(without_native, monkeypatch):
    """Up to KEPT_ENTRIES a cost matrix is formed once for a solve; beyond, for each pass. A derivative forms it."""
    calls = []
    cost = sinkdiv.costs.COSTS["sqeuclidean"]
    matrix = type(cost).matrix
    monkeypatch.setattr(type(cost), "matrix", lambda self, x, y: calls.append(1) or matrix(self, x, y))
    x, y = cloud(194, 20).requires_grad_(), cloud(195, 10)
    sinkdiv.transport_cost(x, y, eps=0.1).backward()
    assert len(calls) == 2
    calls.clear()
    monkeypatch.setattr(cloud_geometry, "KEPT_ENTRIES", 199)
    t = sinkdiv.solve(x, y, eps=0.1)
    t.value.backward()
    assert len(calls) == t.passes + 1


def test_the_two_thresholds_are_those_that_are_read(without_native, monkeypatch):
    """KEPT_ENTRIES and TILE_ENTRIES take effect at the call, so that they can be set for a machine."""
    rows = []
    matrix_tiles, cloud_tiles = reference.matrix_tiles, reference.cloud_tiles

    def watch(tiles):
        for tile in tiles:
            rows.append(tile[0].stop - tile[0].start)
            yield tile

    monkeypatch.setattr(reference, "matrix_tiles", lambda C: watch(matrix_tiles(C)))
    monkeypatch.setattr(reference, "cloud_tiles", lambda x, y, cost: watch(cloud_tiles(x, y, cost)))
    x, y = cloud(196, 20), cloud(197, 20)
    sinkdiv.transport_cost(x, y, eps=0.5)
    assert set(rows) == {20}
    for kept in (400, 399):
        rows.clear()
        monkeypatch.setattr(cloud_geometry, "KEPT_ENTRIES", kept)
        monkeypatch.setattr(reference, "TILE_ENTRIES", 160)
        sinkdiv.transport_cost(x, y, eps=0.5)
        assert set(rows) == {8, 4}
