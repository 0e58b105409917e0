"""Fixtures: the two dtypes that are computed as they are, and the ways a cloud's cost can be reduced."""

import os

# Before torch is imported: the workers already fill the machine, and so do the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

# Where there is no GPU the kernels for it are interpreted; Triton decides that when a kernel is defined.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from hypothesis import HealthCheck, settings

from sinkdiv.geometry import cloud, whole
from sinkdiv.kernels import native, reference

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


def pytest_configure(config):
    # Were they in pyproject.toml, pytest would import the package, and PyTorch, before the lines at the top.
    for warning in ("ConvergenceWarning", "DerivativeWarning"):
        config.addinivalue_line("filterwarnings", f"error::sinkdiv.{warning}")


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture
def streamed(monkeypatch):
    """As large problems are solved: pass by pass, each forming the costs it needs."""
    monkeypatch.setattr(cloud, "KEPT_ENTRIES", 0)
    monkeypatch.setattr(whole, "ENTRIES", 0)


@pytest.fixture
def without_native(monkeypatch):
    """As where the native extension could not be built."""
    monkeypatch.setattr(native, "available", False)


@pytest.fixture
def tiled(streamed, without_native, monkeypatch):
    """The reference kernels, with tiles so small that every problem here needs several."""
    monkeypatch.setattr(reference, "TILE_ENTRIES", 64)


@pytest.fixture(params=["default", "streamed", "tiled"])
def route(request):
    """The ways of a solve: as a user of small problems gets it, as one of large ones does, and by the reference."""
    if request.param != "default":
        request.getfixturevalue(request.param)
    return request.param
