"""`sinkdiv distance`: the Sinkhorn divergence of two point sets in files."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def distance(
    first: Annotated[Path, typer.Argument(help="Points (n, d): .npy, .npz with one array, or .csv of numbers.")],
    second: Annotated[Path, typer.Argument(help="Points (m, d).")],
    blur: Annotated[float | None, typer.Option(help="Regularisation as a length.")] = None,
    eps: Annotated[float | None, typer.Option(help="Regularisation in units of the cost.")] = None,
    cost: Annotated[str, typer.Option(help="sqeuclidean, euclidean or cosine.")] = "sqeuclidean",
    tol: Annotated[float, typer.Option(help="Marginal error to reach.")] = 1e-3,
    weights_a: Annotated[Path | None, typer.Option(help="Weights (n,) of the first points.")] = None,
    weights_b: Annotated[Path | None, typer.Option(help="Weights (m,) of the second points.")] = None,
    plan: Annotated[Path | None, typer.Option(help="Write the (n, m) transport plan to this .npz.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The Sinkhorn divergence of two point sets, with its interval.

    Example: [bold]sinkdiv distance a.npy b.npy --blur 0.05 --plan plan.npz[/bold]
    """
    from sinkdiv.cli.point_files import measure_distance, read_pair, write_plan

    points = read_pair(first, second, weights_a, weights_b)
    divergence, summary = measure_distance(*points, blur=blur, eps=eps, cost=cost, tol=tol)
    if plan is not None:
        write_plan(plan, divergence)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    table = Table(show_header=False)
    table.add_row("Sinkhorn divergence", f"{summary['value']:.6g}")
    table.add_row("certified interval", f"[{summary['lower']:.6g}, {summary['upper']:.6g}]")
    for name, solve in summary["transports"].items():
        table.add_row(name.replace("_", " "), f"{solve['status']} ({solve['passes']} passes)")
    Console().print(table)
