"""The machine, the versions and the commit that figures belong to."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import sinkdiv

PACKAGES = ("torch", "numpy", "geomloss", "pykeops", "pot", "ott-jax", "jax", "matplotlib")


def machine() -> dict[str, Any]:
    """The processor, the threads and the versions that the times belong to."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": model, "cores": os.cpu_count(), "usable_cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(PACKAGES), "commit": commit(), "load": round(os.getloadavg()[0], 2), "date": now(),
    }  # fmt: skip


def versions(packages: tuple[str, ...]) -> dict[str, str | None]:
    return {"sinkdiv": sinkdiv.__version__, **{name: installed(name) for name in packages}}


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the sources, with a + if they were changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return None


def now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
