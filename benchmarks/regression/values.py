"""Do two trees compute the same numbers?

    OMP_NUM_THREADS=1 PYTHONPATH=A/src python -m benchmarks.regression.values write A.json
    OMP_NUM_THREADS=1 PYTHONPATH=B/src python -m benchmarks.regression.values write B.json
    python -m benchmarks.regression.values compare A.json B.json

`write` solves every problem of `problems.py` and keeps each quantity of `quantities.py` with all its digits. `compare`
prints the largest relative difference of each kind of quantity and ends with status 1 if a number differs by more than
rounding, or a count of passes, a status or an error differs at all.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

#: Relative differences, in the largest norm, that count as rounding.
ROUNDING = {"float64": 1e-9, "float32": 1e-4}
#: They are relative to at least this: what is exactly 0 comes out as the difference of numbers near 1.
LEAST = {"float64": 1e-6, "float32": 1e-3}
#: A tensor of more numbers is kept as its sum, its norm and about so many of them.
KEPT = 20_000

Results = dict[str, dict[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.command == "write":
        return write(options.out, options.only)
    return compare(json.loads(options.before.read_text()), json.loads(options.after.read_text()), options.all)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="solve all problems with the tree on PYTHONPATH")
    writing.add_argument("out", type=Path)
    writing.add_argument("--only", default="", help="problems whose name contains this")
    comparing = commands.add_parser("compare", help="show how two results differ")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--all", action="store_true", help="list every difference")
    return parser.parse_args(arguments)


def write(out: Path, only: str) -> int:
    """Solve the problems one after the other; a problem that fails keeps its error and does not end the run."""
    import sinkdiv
    from benchmarks.regression.problems import zoo
    from benchmarks.regression.quantities import quantities

    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.stderr.write("set OMP_NUM_THREADS=1: sums over threads are not added in the same order each time\n")
        return 2
    results: Results = {}
    for problem in zoo():
        if only not in problem.name:
            continue
        begin = time.perf_counter()
        torch.manual_seed(0)
        try:
            found = quantities(problem)
        except Exception as error:  # another tree's failure is a difference to be shown
            found = {"failure": [f"{type(error).__name__}: {error}"]}
        results[problem.name] = {name: stored(value) for name, value in found.items()}
        failure = f", {found['failure'][0]}" if "failure" in found else ""
        sys.stderr.write(f"{time.perf_counter() - begin:6.2f} s  {problem.name}: {len(found)} quantities{failure}\n")
    out.write_text(json.dumps(results))
    sys.stderr.write(f"{len(results)} problems, {sum(map(len, results.values()))} quantities, {sinkdiv.__file__}\n")
    return 0


def stored(value: Any) -> Any:
    """A tensor as its dtype, shape and numbers; lists and words as they are."""
    if hasattr(value, "detach"):
        numbers = value.detach().double().flatten()
        if len(numbers) > KEPT:
            numbers = torch.cat([numbers.sum()[None], numbers.norm()[None], numbers[:: len(numbers) // KEPT + 1]])
        dtype = str(value.dtype).removeprefix("torch.")
        return {"dtype": dtype, "shape": list(value.shape), "numbers": numbers.tolist()}
    return value


def compare(before: Results, after: Results, every: bool) -> int:
    """Print how two results differ; 1 if they differ by more than rounding."""
    differences = [
        (name, quantity, *difference(before[name][quantity], after.get(name, {}).get(quantity)))
        for name in before
        for quantity in before[name]
    ]
    missing = [name for name in after if name not in before]
    kinds: dict[str, list[tuple[str, str, float, str]]] = {}
    for one in differences:
        kinds.setdefault(one[1], []).append(one)
    print("| quantity | problems | differ | largest difference | where |\n|---|---|---|---|---|")  # noqa: T201
    for kind, found in sorted(kinds.items()):
        name, _, largest, _ = max(found, key=lambda one: one[2])
        differing = sum(one[2] > 0 for one in found)
        print(f"| {kind} | {len(found)} | {differing} | {largest:.1e} | {name if largest else ''} |")  # noqa: T201
    beyond = [one for one in differences if one[3]]
    shown = [one for one in differences if one[2] > 0] if every else beyond
    for name, quantity, relative, complaint in shown:
        print(f"{name} | {quantity} | {relative:.2e} {complaint}")  # noqa: T201
    same = sum(one[2] == 0 for one in differences)
    print(  # noqa: T201
        f"{len(differences)} quantities of {len(before)} problems: {same} the same to the last bit, "
        f"{len(beyond)} beyond rounding" + (f"; not in the first: {missing}" if missing else "")
    )
    return 1 if beyond else 0


def difference(before: Any, after: Any) -> tuple[float, str]:
    """The relative difference of two quantities in the largest norm, and what is wrong with it, if anything is."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return (0.0, "") if before == after else (math.inf, f"{before} became {after}"[:200])
    if before["shape"] != after["shape"] or before["dtype"] != after["dtype"]:
        return math.inf, f"{before['dtype']} {before['shape']} became {after['dtype']} {after['shape']}"
    pairs = [*zip(before["numbers"], after["numbers"], strict=True)]
    finite = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if any(
        str(first) != str(second) for first, second in pairs if not (math.isfinite(first) and math.isfinite(second))
    ):
        return math.inf, "numbers that are infinite or NaN differ"
    largest = max((max(abs(first), abs(second)) for first, second in finite), default=0.0)
    apart = max((abs(first - second) for first, second in finite), default=0.0)
    relative = apart / max(largest, LEAST[before["dtype"]])
    return relative, "beyond rounding" if relative > ROUNDING[before["dtype"]] else ""


if __name__ == "__main__":
    sys.exit(main())
