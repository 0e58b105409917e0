"""What the experiments share: one file a finished run, the conditions it was made in, and words on the terminal."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import sinkdiv

CLEAR = "\r\033[K" if sys.stderr.isatty() else ""


def finished(file: Path, settings: dict[str, Any]) -> bool:
    """Whether the file of a run exists.

    Raises:
        SystemExit: if it was made with other settings.
    """
    if not file.exists():
        return False
    record = json.loads(file.read_text())
    for name, value in settings.items():
        if record[name] != value:
            sys.exit(f"{file} was made with {name} {record[name]}, not {value}: choose another --out, or remove it")
    return True


def read_all(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((folder / "records").glob("*.json"))]


def machine() -> dict[str, Any]:
    cpu = next(
        (line.split(":", 1)[1].strip() for line in open_lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    packages = {name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn")}
    return {
        "cpu": cpu, "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2), "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "versions": {"Python": platform.python_version(), "sinkdiv": sinkdiv.__version__, **packages},
    }  # fmt: skip


def open_lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def describe(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['cpu']}, threads: {machine['threads']}; {versions}."


def say(text: str) -> None:
    sys.stderr.write(f"{CLEAR}{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stderr.flush()


def show(text: str) -> None:
    """One line that is overwritten, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{CLEAR}{text} ")
        sys.stderr.flush()
