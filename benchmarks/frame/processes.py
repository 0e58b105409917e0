"""Measuring in a process of its own: how it is started, what it prints, and how much memory it takes. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.frame.rows import Row

ROOT = Path(__file__).parents[2]


def started(module: str, *arguments: object) -> tuple[list[str], dict[str, str]]:
    """The command that runs a module of the benchmarks, and the environment in which it is found."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return [sys.executable, "-m", module, *map(str, arguments)], {**os.environ, "PYTHONPATH": path}


def child(module: str, *arguments: object, limit: float) -> Row:
    """The line of JSON that the process of a module prints, or a note that says why it did not."""
    command, environment = started(module, *arguments)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=limit)
        return json.loads(done.stdout.splitlines()[-1])  # a library may print before
    except subprocess.TimeoutExpired:
        return {"note": f"not finished within {limit:.0f} s"}
    except subprocess.CalledProcessError as error:
        return {"note": f"failed: {(error.stderr.strip() or str(error)).splitlines()[-1][:200]}"}


def report_peak(warm_up: Callable[[], Any], measure: Callable[[], Row], gigabytes: float | None = None) -> None:
    """Print what ``measure`` finds, with the memory that it took at its peak, as a line of JSON.

    The peak is the high-water mark of the resident set over what the process held when the library had been imported
    and used once, by ``warm_up``. Heap above ``gigabytes`` is refused: a method that needs more gets a note.
    """
    warm_up()
    settle()
    before = resident("VmRSS")
    with contextlib.ExitStack() as stack:
        if gigabytes is not None:
            stack.enter_context(memory_limit(gigabytes, before))
        try:
            result = measure()
        except RuntimeError as error:
            if gigabytes is None or "allocate" not in str(error):
                raise
            result = {"note": f"needs more than {gigabytes:g} GB"}
    result |= {"before_bytes": before, "peak_bytes": resident("VmHWM") - before}
    sys.stdout.write(json.dumps(result) + "\n")


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


@contextlib.contextmanager
def memory_limit(gigabytes: float, held: int = 0) -> Iterator[None]:
    """Refuse heap above what is held, so that a method whose tape grows fails instead of filling the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = held + int(1e9 * gigabytes)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
