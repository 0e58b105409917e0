"""Fixtures: the two dtypes that are computed natively, and the two ways a cloud's cost can be reduced."""

import os

# Before torch is imported: the workers already fill the machine, and so do the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import HealthCheck, settings

from sinkdiv.geometry import cloud
from sinkdiv.kernels import reference

# The fixtures below hold for all examples of a test alike, so hypothesis need not see them renewed.
settings.register_profile(
    "sinkdiv",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("sinkdiv")


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture
def streamed(monkeypatch):
    """Cost matrices are never kept, and tiles are so small that every problem here needs several."""
    monkeypatch.setattr(cloud, "KEPT_ENTRIES", 0)
    monkeypatch.setattr(reference, "TILE_ENTRIES", 64)


@pytest.fixture(params=["dense", "streamed"])
def route(request):
    if request.param == "streamed":
        request.getfixturevalue("streamed")
    return request.param
