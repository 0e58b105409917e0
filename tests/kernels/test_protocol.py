"""Each backend has every reduction of the protocol, under the same name and with the same arguments."""

import inspect

import pytest

from sinkdiv import kernels
from sinkdiv.kernels import native, reference, triton

BACKENDS = [native, reference]

if triton.available:
    from sinkdiv.kernels.triton import reductions

    BACKENDS.append(reductions)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.__name__)
@pytest.mark.parametrize("kind", ["PointReductions", "MatrixReductions"])
def test_reductions_have_one_signature(backend, kind):
    protocol = kernels.PointReductions if kind == "PointReductions" else kernels.Reductions
    names = [name for name in dir(protocol) if not name.startswith("_")]
    assert "softmin" in names
    for name in names:
        wanted, found = (inspect.signature(getattr(one, name)) for one in (protocol, getattr(backend, kind)))
        assert found == wanted, name
