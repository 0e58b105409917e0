"""Processes that work with one tree: each imports the package of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def started(source: Path, module: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A process that runs a module of the benchmarks with the package in the folder ``source``, on one thread.

    Sums over several threads are not added in the same order each time.
    """
    environment = {**os.environ, "PYTHONPATH": str(source.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **options)


def require_own_package() -> None:
    """End this process if it has imported another package than the one that `started` names."""
    import sinkdiv

    expected = Path(os.environ["PYTHONPATH"])
    if not Path(sinkdiv.__file__).is_relative_to(expected):
        sys.exit(f"{sinkdiv.__file__} is imported in place of {expected}: uninstall it here first")
