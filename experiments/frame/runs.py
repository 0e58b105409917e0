"""Runs that are each written to a file when they end: a command that is repeated goes on where it was stopped."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

import sinkdiv
from sinkdiv.generative.files import write_text

Record = dict[str, Any]
CLEAR = "\r\033[K" if sys.stderr.isatty() else ""


class Run(Protocol):
    """A dataclass that holds all that determines a run."""

    __dataclass_fields__: Any

    @property
    def name(self) -> str:
        """Of its file."""


def carried_out(
    runs: Sequence[Run], folder: Path, train: Callable[[Any], Record], report: Callable[[list[Record]], None],
    *, again: bool = False,
) -> int:  # fmt: skip
    """Do the runs whose records are missing from the folder, then report on all records there.

    Args:
        runs: in the order in which they are done.
        folder: of the records, one file each.
        train: what a run finds. Its settings, its machine and its seconds are recorded with it.
        report: makes the table and the figures.
        again: do the runs that have a record too.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it otherwise
    status = 0
    try:
        _work(runs, folder, train, again)
    except KeyboardInterrupt:
        say("interrupted; finished runs are kept, and the same command goes on with the others")
        status = 130
    if found := records(folder):
        report(found)
    return status


def _work(runs: Sequence[Run], folder: Path, train: Callable[[Any], Record], again: bool) -> None:
    for count, run in enumerate(runs, 1):
        place = f"{count} of {len(runs)}: {run.name}"
        if finished(run, folder) and not again:
            say(f"{place}: finished before")
            continue
        say(place)
        start, begin = machine(), time.perf_counter()
        record = {**asdict(run), "machine": start, **train(run)}
        record.setdefault("seconds", round(time.perf_counter() - begin, 1))
        write_text(folder / f"{run.name}.json", json.dumps(record) + "\n")
        say(f"{place}: {record['seconds']:.0f} s")


def finished(run: Run, folder: Path) -> bool:
    """Whether the run's record exists.

    Raises:
        SystemExit: if it was made with other settings.
    """
    file = folder / f"{run.name}.json"
    if not file.exists():
        return False
    record = json.loads(file.read_text())
    for name, value in json.loads(json.dumps(asdict(run))).items():
        if record.get(name) != value:
            sys.exit(f"{file} was made with {name} {record.get(name)}, not {value}: choose another --out, or remove it")
    return True


def records(folder: Path) -> list[Record]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    packages = {name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn")}
    return {
        "cpu": models[0] if models else platform.machine(), "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2), "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "versions": {"Python": platform.python_version(), "sinkdiv": sinkdiv.__version__, **packages},
    }  # fmt: skip


def say(text: str) -> None:
    sys.stderr.write(f"{CLEAR}{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stderr.flush()


def show(text: str) -> None:
    """One line that is overwritten, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{CLEAR}{text} ")
        sys.stderr.flush()
