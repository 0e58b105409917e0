"""`sinkdiv distance`: the Sinkhorn divergence of two point sets in files."""

import json
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sinkdiv.costs import NAMED_COSTS
from sinkdiv.declarations import options_of
from sinkdiv.options import LossOptions
from sinkdiv.solvers.choice import SOLVERS, Auto
from sinkdiv.solving import ConvergenceWarning


def _meaning(kind: type, name: str, names: Iterable[str] = ()) -> Any:
    """An option of the command line that means what the library's option of that name does; ``names`` it may have."""
    summary = options_of(kind)[name].summary
    return typer.Option(help=f"{summary} {', '.join(names)}." if names else summary)


def _sides(numbers: list[float] | None) -> float | tuple[float, ...] | None:
    """One number for both sides, or as many as were given."""
    if not numbers:
        return None
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def distance(
    first: Annotated[Path, typer.Argument(help="Points (n, d): .npy, .npz with one array, or .csv of numbers.")],
    second: Annotated[Path, typer.Argument(help="Points (m, d).")],
    blur: Annotated[float | None, _meaning(LossOptions, "blur")] = None,
    eps: Annotated[float | None, _meaning(LossOptions, "eps")] = None,
    cost: Annotated[str, _meaning(LossOptions, "cost", NAMED_COSTS)] = "sqeuclidean",
    reach: Annotated[list[float] | None, _meaning(LossOptions, "reach")] = None,
    rho: Annotated[list[float] | None, _meaning(LossOptions, "rho")] = None,
    value: Annotated[str, _meaning(LossOptions, "value")] = "entropic",
    tol: Annotated[float, _meaning(LossOptions, "tol")] = options_of(LossOptions)["tol"].default,
    solver: Annotated[str, _meaning(LossOptions, "solver", SOLVERS)] = "auto",
    max_passes: Annotated[int, _meaning(Auto, "max_passes")] = Auto.max_passes,
    precision: Annotated[str, _meaning(Auto, "precision")] = Auto.precision,
    progress: Annotated[bool, _meaning(Auto, "progress")] = False,
    weights_a: Annotated[Path | None, typer.Option(help="Weights (n,) of the first points.")] = None,
    weights_b: Annotated[Path | None, typer.Option(help="Weights (m,) of the second points.")] = None,
    plan: Annotated[Path | None, typer.Option(help="Write the (n, m) transport plan to this .npz.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The Sinkhorn divergence of two point sets, with its interval.

    Options with a pair for the two sides are given twice: --reach 1 --reach 2. The interval belongs to the entropic
    value, and there is none with --value sharp. A solve that has not converged ends with a warning on stderr and exit
    code 0: its interval holds all the same.

    Example: [bold]sinkdiv distance a.npy b.npy --blur 0.05 --plan plan.npz[/bold]
    """
    from sinkdiv.cli.point_files import measure_distance, read_pair, write_plan

    points = read_pair(first, second, weights_a, weights_b)
    how = {"max_passes": max_passes, "precision": precision, "progress": progress}
    what = {"blur": blur, "eps": eps, "cost": cost, "reach": _sides(reach), "rho": _sides(rho), "tol": tol}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        divergence, summary = measure_distance(*points, what, value, solver, how)
    for warning in caught:
        sys.stderr.write(f"sinkdiv: warning: {warning.message}\n")
    if plan is not None:
        write_plan(plan, divergence)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    table = Table(show_header=False)
    table.add_row("Sinkhorn divergence", f"{summary['value']:.6g}")
    if value == "entropic":
        table.add_row("certified interval", f"[{summary['lower']:.6g}, {summary['upper']:.6g}]")
    for name, solve in summary["transports"].items():
        table.add_row(name.replace("_", " "), f"{solve['status']} ({solve['passes']} passes)")
    Console().print(table)
