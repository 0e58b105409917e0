"""Peak memory and time of one pass, measured in a process of its own: prints one line of JSON.

    python benchmarks/memory.py 100000 --gradient

Peak is the high-water mark of the resident set, in bytes, over what the process held before the points were made, when
the library had been imported and used once. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import re
import sys
import time
from pathlib import Path

import torch
from workloads import cubes

from sinkdiv.costs import find_cost
from sinkdiv.geometry import CloudGeometry


def resident(name: str) -> int:
    """VmRSS or its high-water mark VmHWM, in bytes."""
    found = re.search(rf"^{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, "this system does not report its memory"
    return 1024 * int(found[1])


def settle() -> None:
    """Give free heap back, so that it does not hide what comes, and start the high-water mark anew."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def measure(n: int, gradient: bool) -> dict[str, float]:
    """Seconds of one softmin pass, and of the reduction that gives the gradient in x, with the peak of both."""
    workload = cubes(n)
    eps = torch.full((1, 1), 2 * workload.blur**2)
    geometry = CloudGeometry(workload.x[None], workload.y[None], find_cost("sqeuclidean"))
    h = torch.full((1, n), 1 / n).log()
    begin = time.perf_counter()
    f = geometry.softmin(h, eps, 0)
    result = {"n": n, "softmin_s": time.perf_counter() - begin}
    if gradient:
        begin = time.perf_counter()
        geometry.gradients(f / eps + h, h, eps, (True, False))
        result["gradient_s"] = time.perf_counter() - begin
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", type=int)
    parser.add_argument("--gradient", action="store_true", help="also the reduction that gives the gradient in x")
    options = parser.parse_args()
    measure(100, True)
    settle()
    before = resident("VmRSS")
    result = measure(options.n, options.gradient)
    result |= {"before_bytes": before, "peak_bytes": resident("VmHWM") - before}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
