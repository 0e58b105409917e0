"""How right, how fast and how large is a derivative, beside POT, OTT-JAX and GeomLoss on the same inputs?

    pip install -c constraints.txt -r benchmarks/requirements.txt -e .
    OMP_NUM_THREADS=2 python benchmarks/derivatives.py --out benchmarks/results --cache references

writes derivatives.json (after every section), derivatives.md and derivatives.svg. A library that is absent is reported
as not installed. ``--only`` replaces some sections of an existing file.

Sections: errors (the gradient's against the forward solve's, on cost matrices), times (value, and value and gradient),
memory (of the sharp value's gradient), hessian (Hessian-vector products of the debiased divergence).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import derivative_report
from derivative_sections import FULL, QUICK, SECTIONS, Context
from measuring import Limits, machine, say
from speed import bind_threads, load


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--quick", action="store_true", help="sizes that show that all works, and measure nothing")
    parser.add_argument("--methods", default="", help="only methods whose name contains this")
    parser.add_argument("--cache", type=Path, help="folder that keeps references between runs")
    parser.add_argument("--limit", type=float, default=200.0, help="seconds that one call may take")
    parser.add_argument("--memory", type=float, default=12.0, help="GB that a method may take")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    for name in options.only:
        if name not in SECTIONS:
            parser.error(f"there is no section {name!r}; there are {', '.join(SECTIONS)}")
    return options


@contextlib.contextmanager
def memory_limit(gigabytes: float) -> Iterator[None]:
    """Refuse heap above this, so that a method whose tape grows fails instead of filling the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int(1e9 * gigabytes)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def save(results: dict[str, Any], folder: Path) -> None:
    """Write the three forms; the JSON first and in one step, so that a crash leaves a whole file."""
    folder.mkdir(parents=True, exist_ok=True)
    results["sections"] = {name: results["sections"][name] for name in SECTIONS if name in results["sections"]}
    draft = folder / "derivatives.json.tmp"
    draft.write_text(json.dumps(results, indent=1) + "\n")
    draft.replace(folder / "derivatives.json")
    plot = derivative_report.draw(results, folder)
    (folder / "derivatives.md").write_text(derivative_report.markdown(results, plot))


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    sizes = QUICK if options.quick else FULL
    limits = replace(Limits(options.limit, options.limit / 5), repetitions=sizes.repetitions)
    context = Context(sizes, options.methods, options.cache, limits, options.memory)
    results = load(options.out / "derivatives.json")
    for name in options.only:
        title, section = SECTIONS[name]
        say(title)
        head = {"title": title, "size": "quick" if options.quick else "full", "machine": machine()}
        with memory_limit(options.memory):
            results["sections"][name] = head | section(context)
        save(results, options.out)


if __name__ == "__main__":
    bind_threads()
    main()
