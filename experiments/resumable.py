"""Runs that are each written to a file when they end: a command that is repeated goes on where it was stopped."""

from __future__ import annotations

import functools
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


def until_interrupted(do: Callable[[], None]) -> int:
    """Call `do`; the exit status: 0, or 130 after Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it otherwise
    try:
        do()
    except KeyboardInterrupt:
        say("interrupted; finished runs are kept, and the same command goes on with the others")
        return 130
    return 0


def work(runs: Sequence[Run], folder: Path, train: Callable[[Any], Record]) -> int:
    """Do the runs whose files are missing from folder/records; the exit status, as of `until_interrupted`."""
    return until_interrupted(functools.partial(_work, runs, folder, train))


def _work(runs: Sequence[Run], folder: Path, train: Callable[[Any], Record]) -> None:
    for count, run in enumerate(runs, 1):
        place = f"{count} of {len(runs)}: {run.name}"
        if finished(run, folder):
            say(f"{place}: finished before")
            continue
        start, begin = machine(), time.perf_counter()
        record = {**asdict(run), "machine": start, **train(run)}
        record["seconds"] = round(time.perf_counter() - begin, 1)
        write_text(folder / "records" / f"{run.name}.json", json.dumps(record) + "\n")
        say(f"{place}: {record['seconds']:.0f} s")


def finished(run: Run, folder: Path) -> bool:
    """Whether the run's file exists.

    Raises:
        SystemExit: if it was made with other settings.
    """
    file = folder / "records" / f"{run.name}.json"
    if not file.exists():
        return False
    record = json.loads(file.read_text())
    for name, value in json.loads(json.dumps(asdict(run))).items():
        if record.get(name) != value:
            sys.exit(f"{file} was made with {name} {record.get(name)}, not {value}: choose another --out, or remove it")
    return True


def records(folder: Path) -> list[Record]:
    return [json.loads(file.read_text()) for file in sorted((folder / "records").glob("*.json"))]


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


def conditions(found: list[Record]) -> str:
    """The machines and versions of the runs, for the end of a table."""
    texts = set()
    for record in found:
        place = record["machine"]
        versions = ", ".join(f"{name} {number}" for name, number in place["versions"].items())
        texts.add(f"*{place['cpu']}, threads: {place['threads']}; {versions}.*")
    return "\n".join(sorted(texts))


def load(found: list[Record]) -> str:
    """How busy the machines were, for a sentence about times."""
    loads = [record["machine"]["load"] for record in found]
    return f"{min(loads):.0f} to {max(loads):.0f} processes on {found[0]['machine']['cores']} cores"


def spread(figures: Sequence[float], digits: int) -> str:
    """mean ± standard deviation; a dash for no figures."""
    if not figures:
        return "–"
    values = torch.tensor(figures, dtype=torch.float64)
    middle = f"{values.mean():.{digits}f}"
    return middle if len(figures) == 1 else f"{middle} ± {values.std():.{digits}f}"


def say(text: str) -> None:
    sys.stderr.write(f"{CLEAR}{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stderr.flush()


def show(text: str) -> None:
    """One line that is overwritten, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{CLEAR}{text} ")
        sys.stderr.flush()
