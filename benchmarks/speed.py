"""How fast is a Sinkhorn divergence, and how right, beside GeomLoss, POT and OTT-JAX on the same inputs?

    pip install -c constraints.txt -r benchmarks/requirements.txt -e .
    OMP_NUM_THREADS=2 python benchmarks/speed.py --out benchmarks/results --cache references

writes speed.json (every time), speed.md and speed_*.svg. It ran with torch 2.13.0, geomloss 0.3.1, pykeops 2.3 (needs
g++), pot 0.9.7.post1, ott-jax 0.6.0 and jax 0.8.3; a library that is absent is reported as not installed. One process
measures everything, in turns that go round the methods, so that a disturbance meets all alike. Each section is written
as soon as it is done; ``--only`` replaces some sections of an existing file. All libraries get OMP_NUM_THREADS threads
(XLA obeys the number of cores the process may use, which is set to the same).

Sections: conventions, T8 (one pass and its floor), kinds (the passes of derivatives too), T5 (training steps), T6
(batches), T1 and T2 (large clouds in 3 and 64 dimensions), accuracy (error against time), growth (time against the
number of points), memory.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import report
from measuring import Limits, machine, say
from sections import FULL, QUICK, SECTIONS, TINY, Context

SIZES = {"full": FULL, "quick": QUICK, "tiny": TINY}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--size", choices=SIZES, default="full", help="quick and tiny only show that all works")
    parser.add_argument("--quick", dest="size", action="store_const", const="quick", help="the same as --size quick")
    parser.add_argument("--methods", default="", help="only methods whose name contains this")
    parser.add_argument("--cache", type=Path, help="folder that keeps float64 references between runs")
    parser.add_argument("--slow", action="store_true", help="also GeomLoss at scaling .9 on the large clouds")
    parser.add_argument("--limit", type=float, default=400.0, help="seconds that one call may take")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    for name in options.only:
        if name not in SECTIONS:
            parser.error(f"there is no section {name!r}; there are {', '.join(SECTIONS)}")
    return options


def bind_threads() -> None:
    """Give XLA, which does not read OMP_NUM_THREADS, as many cores as the others have threads."""
    threads = os.environ.get("OMP_NUM_THREADS")
    usable = sorted(os.sched_getaffinity(0))
    if threads and int(threads) < len(usable):
        os.sched_setaffinity(0, usable[-int(threads) :])


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"sections": {}}


def save(results: dict[str, Any], folder: Path) -> None:
    """Write the three forms; the JSON first and in one step, so that a crash leaves a whole file."""
    folder.mkdir(parents=True, exist_ok=True)
    results["sections"] = {name: results["sections"][name] for name in SECTIONS if name in results["sections"]}
    draft = folder / "speed.json.tmp"
    draft.write_text(json.dumps(results, indent=1) + "\n")
    draft.replace(folder / "speed.json")
    (folder / "speed.md").write_text(report.markdown(results, report.draw(results, folder)))


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    context = Context(
        SIZES[options.size], options.methods, options.cache, options.slow, Limits(options.limit, options.limit / 5)
    )
    results = load(options.out / "speed.json")
    for name in options.only:
        title, section = SECTIONS[name]
        say(title)
        head = {"title": title, "size": options.size, "machine": machine()}
        results["sections"][name] = head | section(context)
        save(results, options.out)


if __name__ == "__main__":
    bind_threads()
    main()
