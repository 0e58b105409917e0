"""Fused kernels on a GPU: are they right, how fast are they, and how fast is what is built on them, beside others?

    PYTHONPATH=src python -m pytest tests/*/test_triton*.py -n 0
    PYTHONPATH=src python -m benchmarks.gpu

are the first two things to run on a machine with a GPU. They need the repository, PyTorch and Triton; nothing is built.
Other libraries (geomloss, pykeops, flash-sinkhorn) take part where they are installed. The second takes eight minutes
and writes gpu.json after each row and gpu.md after each section, so that a run that is cut off says what it found.
On a GPU each section is a process of its own, which is ended when its time is over by far: a kernel that crashes takes
one section with it. SINKDIV_COMMIT names the sources where git does not.

Sections, in the order of what matters most: errors (each kernel against float64; its many processes also compile what
the next ones use), solves (to a marginal error of 1e-3, beside peers), times (single kernels beside a floor), waits
(how often the host waits for the device), steps (mini-batches, and a step as a CUDA graph), first (calls that compile).
``--tune`` runs one of its own instead: alternatives to the tables of tiles.

``--quick --device cpu`` shows on any machine that all works, by Triton's interpreter and on sizes that measure nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.frame.book import add_quick, add_sections, load, save
from benchmarks.frame.clock import say
from benchmarks.frame.processes import started
from benchmarks.gpu import report
from benchmarks.gpu.book import FULL, QUICK, Context, Section, fill
from benchmarks.gpu.device import Device

#: Seconds for each section, in the order in which they run, and their titles.
BUDGETS = {"errors": 80.0, "solves": 165.0, "times": 100.0, "waits": 10.0, "steps": 40.0, "first": 20.0}
TUNING = {"tiles": 440.0}
ORDER = (*BUDGETS, *TUNING)
MODULE = "benchmarks.gpu"
TITLES = {
    "errors": "Errors of single kernels", "solves": "Whole solves to a marginal error of 1e-3",
    "times": "Times of single kernels", "waits": "Waiting for the device", "steps": "Training steps",
    "first": "Calls that compile", "tiles": "Tiles",
}  # fmt: skip
INTRODUCTIONS = {
    "errors": (
        "Softmins and c-transforms: the largest error, in ε. All others: the largest, relative to the largest entry. "
        "A unit is half a unit in the last place of float32 (or float64) times the largest cost over ε: what rounding "
        "an exponent once does to its exponential. With TF32 coordinates are rounded to 11 bits, and errors are of "
        "the costs between the rounded points."
    ),
    "solves": report.METHOD,
}
#: Seconds after its time in which a section may finish the row that it is at.
GRACE_S = 20.0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    add_sections(parser, BUDGETS)
    parser.add_argument("--tune", action="store_true", help="time alternative tiles, and nothing else")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, …, or cpu")
    add_quick(parser)
    parser.add_argument("--seconds", type=float, default=sum(BUDGETS.values()), help="for all sections together")
    parser.add_argument("--jobs", type=int, help="processes that compile (12 at most, or the cores there are)")
    parser.add_argument("--section", choices=ORDER, help=argparse.SUPPRESS)  # what this process was started for
    options = parser.parse_args(arguments)
    options.only = list(TUNING) if options.tune else options.only
    if options.jobs is None:
        options.jobs = 1 if options.device == "cpu" else min(12, len(os.sched_getaffinity(0)))
    return options


def budgets(options: argparse.Namespace) -> dict[str, float]:
    """Seconds for each section that is asked for, in proportion to what they take of a whole run."""
    chosen = {name: (BUDGETS | TUNING)[name] for name in options.only}
    scale = min(1.0, options.seconds / sum(chosen.values()))
    return {name: scale * seconds for name, seconds in chosen.items()}


def run_section(name: str, options: argparse.Namespace, seconds: float) -> str:
    """Run a section, on a GPU in a process of its own; what went wrong, or nothing."""
    if options.device == "cpu" and name != "first":
        run_here(name, argparse.Namespace(**{**vars(options), "seconds": seconds}))
        return ""
    given = ["--section", name, "--out", options.out, "--device", options.device, "--seconds", seconds]
    command, environment = started(MODULE, *given, "--jobs", options.jobs, *(["--quick"] * options.quick))
    with tempfile.TemporaryDirectory() as empty:
        if name == "first":
            environment["TRITON_CACHE_DIR"] = empty
        # A session of its own, so that the processes that it starts end with it.
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            code = process.wait(seconds + GRACE_S)
        except subprocess.TimeoutExpired:
            return f"The section did not end {GRACE_S:.0f} s after its time and was stopped."
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return f"The section's process ended with code {code}." if code else ""


def run_here(name: str, options: argparse.Namespace) -> None:
    """In this process: what `run_section` comes to."""
    ends = time.monotonic() + options.seconds
    from benchmarks.gpu import kernels, solves, tiles  # Triton compiles or interprets from here on

    sections: dict[str, Section] = {**kernels.SECTIONS, **solves.SECTIONS, **tiles.SECTIONS}
    device = Device(options.device)
    head: dict[str, Any] = {
        "title": TITLES[name], "introduction": INTRODUCTIONS.get(name, ""), "facts": device.facts(),
        "size": "quick" if options.quick else "full", "budget_s": options.seconds,
    }  # fmt: skip
    context = Context(device, QUICK if options.quick else FULL, options.jobs, ends)
    fill(options.out / "gpu.json", name, head, sections[name], context)


def render(file: Path) -> None:
    results = load(file)
    save(results, file, ORDER)
    file.with_suffix(".md").write_text(report.report(results))


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.stderr.write("PyTorch finds no GPU here; --quick --device cpu shows that the benchmark works\n")
        return 1
    if options.device == "cpu" and not os.environ.get("TRITON_INTERPRET"):
        # Triton looks at this when it is imported.
        command, environment = started(MODULE, *(sys.argv[1:] if arguments is None else arguments))
        return subprocess.run(command, env=environment | {"TRITON_INTERPRET": "1"}).returncode
    if options.section:
        run_here(options.section, options)
        return 0
    file, failures = options.out / "gpu.json", 0
    for name, seconds in budgets(options).items():
        say(f"{TITLES[name]}, {seconds:.0f} s")
        if note := run_section(name, options, seconds):
            failures += 1
            say(f"  {note}")
            results = load(file)
            if name in results["sections"]:
                results["sections"][name]["note"] = note
                save(results, file)
        render(file)
    return min(1, failures)


if __name__ == "__main__":
    sys.exit(main())
