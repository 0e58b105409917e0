"""The Triton kernels as GPUs would run them, compiled without one: what fits, and what does not spill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

SUPPORT = Path(__file__).parents[1] / "support"

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

pytestmark = pytest.mark.skipif(
    not all((TOOLS / tool).exists() for tool in ("ptxas", "cuobjdump")), reason="this Triton brings no NVIDIA tools"
)

#: Shared memory that one program can have (CUDA C++ Programming Guide, technical specifications by compute capability;
#: AMD Instinct MI300 instruction set architecture, local data share).
SHARED = {"sm_80": 163 * 1024, "sm_86": 99 * 1024, "sm_90": 227 * 1024, "gfx942": 64 * 1024}

#: What a few values that are needed once, outside of loops, may take.
FEW_BYTES = 64


def compiled(architecture, which, cache):
    """What `compiled_kernels` prints, in a process of its own: here kernels are interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SUPPORT / "compiled_kernels.py", architecture, which],
        env=environment, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("architecture", "which", "count"),
    [
        ("sm_90", "representative", 16),
        ("sm_80", "few", 4),
        ("sm_86", "smallest", 3),
        ("gfx942", "few", 4),
    ],
)
def test_kernels_compile_and_fit(tmp_path, architecture, which, count):
    """Sums over pairs spill no registers; of the tiles of each table the last fits every GPU."""
    kernels = compiled(architecture, which, tmp_path)
    assert len(kernels) == count
    for kernel in kernels:
        assert kernel["shared"] <= SHARED[architecture], kernel
        spilled = kernel.get("stack", 0)
        assert spilled <= (FEW_BYTES if kernel["kernel"] == "products_kernel" else 0), kernel


def test_small_solves_load_costs_one_by_one(tmp_path):
    """The compiler is told that two costs of a column lie side by side, to choose which threads hold them
    (`sweeps.costs_of`). They do not: no load may rely on it."""
    kernels = compiled("sm_90", "small", tmp_path)
    assert len(kernels) == 5
    for kernel in kernels:
        assert kernel["vector_loads"] == 0, kernel
        assert kernel["stack"] <= FEW_BYTES, kernel
