"""What a tree computes, with all its digits, and how two such results differ.

A process for each tree solves every problem of `problems.py` and writes each quantity of `quantities.py` to a file.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.frame.book import Results as Section
from benchmarks.frame.rows import Row, failure
from benchmarks.regression.trees import require_own_package, started

#: Relative differences, in the largest norm, that count as rounding.
ROUNDING = {"float64": 1e-9, "float32": 1e-4}
#: They are relative to at least this: what is exactly 0 comes out as the difference of numbers near 1.
LEAST = {"float64": 1e-6, "float32": 1e-3}
#: A tensor of more numbers is kept as its sum, its norm and about so many of them.
KEPT = 20_000

Results = dict[str, dict[str, Any]]


def written(tree: Path, only: str) -> Results:
    """What the tree computes of the problems whose name contains ``only``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.json"
        process = started(tree, "benchmarks.regression.values", file, only)
        if process.wait():
            raise RuntimeError(f"{tree} failed")
        found: Results = json.loads(file.read_text())
    return found


def work(out: str, only: str) -> None:
    """Solve the problems one after the other; a problem that fails keeps its error and does not end the run."""
    from benchmarks.regression.problems import zoo
    from benchmarks.regression.quantities import quantities

    require_own_package()
    results: Results = {}
    for problem in zoo():
        if only not in problem.name:
            continue
        begin = time.perf_counter()
        torch.manual_seed(0)
        try:
            found = quantities(problem)
        except Exception as error:  # another tree's failure is a difference to be shown
            found = {"failure": [failure(error)]}
        results[problem.name] = {name: stored(value) for name, value in found.items()}
        sys.stderr.write(f"{time.perf_counter() - begin:6.2f} s  {problem.name}: {len(found)} quantities\n")
    Path(out).write_text(json.dumps(results))


def stored(value: Any) -> Any:
    """A tensor as its dtype, shape and numbers; lists and words as they are."""
    if hasattr(value, "detach"):
        numbers = value.detach().double().flatten()
        if len(numbers) > KEPT:
            numbers = torch.cat([numbers.sum()[None], numbers.norm()[None], numbers[:: len(numbers) // KEPT + 1]])
        dtype = str(value.dtype).removeprefix("torch.")
        return {"dtype": dtype, "shape": list(value.shape), "numbers": numbers.tolist()}
    return value


def compared(before: Results, after: Results) -> Section:
    """A row for each kind of quantity, and the differences beyond rounding."""
    differences = [
        {"problem": problem, "quantity": quantity, "relative": relative, "complaint": complaint}
        for problem, found in before.items()
        for quantity, value in found.items()
        for relative, complaint in [difference(value, after.get(problem, {}).get(quantity))]
    ]
    kinds: dict[str, list[Row]] = {}
    for one in differences:
        kinds.setdefault(one["quantity"], []).append(one)
    return {
        "problems": len(before), "quantities": len(differences),
        "same": sum(one["relative"] == 0 for one in differences),
        "beyond": [one for one in differences if one["complaint"]],
        "rows": [of_kind(kind, found) for kind, found in sorted(kinds.items())],
    }  # fmt: skip


def of_kind(kind: str, found: list[Row]) -> Row:
    largest = max(found, key=lambda one: one["relative"])
    return {
        "quantity": kind, "problems": len(found), "differ": sum(one["relative"] > 0 for one in found),
        "largest": largest["relative"], "where": largest["problem"],
    }  # fmt: skip


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
    work(*sys.argv[1:])
