"""The commands of `sinkdiv`: what they accept and print. Heavy packages are imported by the commands that need them."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sinkdiv.costs import NAMED_COSTS
from sinkdiv.declarations import options_of
from sinkdiv.generative.errors import InputError
from sinkdiv.options import LossOptions
from sinkdiv.solvers.choice import SOLVERS, Auto
from sinkdiv.training_commands import INTERRUPTED, TrainingEndedError, scores, train_app

if TYPE_CHECKING:
    from sinkdiv.generative.runs import RunFolder

app = typer.Typer(
    help="Sinkhorn divergences, and the generative models trained with them.\n\n"
    "Example: [bold]sinkdiv distance a.npy b.npy --blur 0.05[/bold]",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(train_app, name="train")

MISTAKE = 2
PACKAGES = ("torch", "numpy", "lightning", "torchmetrics", "scikit-learn", "matplotlib")


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; a user's mistake becomes one line on stderr and code 2."""
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="sinkdiv")
    except InputError as error:
        return _fail(str(error), MISTAKE)
    except TrainingEndedError as error:
        return _fail(str(error), error.code)
    except Exception as error:
        # Usage errors have no public base class in every supported typer; this method is what they share.
        if not hasattr(error, "format_message"):
            raise
        return _fail(error.format_message(), MISTAKE)
    # typer answers Ctrl-C outside training with this code and no word.
    return _fail("interrupted", INTERRUPTED) if code == INTERRUPTED else int(code or 0)


def _fail(message: str, code: int) -> int:
    # The message is empty when a command without arguments has just printed its help.
    if message:
        sys.stderr.write(f"sinkdiv: {' '.join(message.split())}\n")
    return code


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=10_000, help="How many images.")] = 64,
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("samples.png"),
    seed: Annotated[int, typer.Option(min=0, help="Of the draws from the prior.")] = 0,
) -> None:
    """Draw samples from a trained run into one PNG.

    Example: [bold]sinkdiv sample runs/sae -n 64 --out samples.png[/bold]
    """
    from sinkdiv.generative.files import write_image
    from sinkdiv.generative.runs import load_run
    from sinkdiv.generative.showing import sample_grid

    picture = sample_grid(load_run(_existing_run(run)).model, count, seed)
    try:
        write_image(out, picture)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from error
    typer.echo(f"{count} samples in {out}")


@app.command()
def evaluate(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Score a trained run again and rewrite its metrics.json and report.

    Example: [bold]sinkdiv evaluate runs/sae[/bold]
    """
    from sinkdiv.generative import finishing
    from sinkdiv.generative.score_table import explanation

    folder = _existing_run(run)
    metrics = finishing.evaluate(folder)
    Console().print(scores(metrics))
    typer.echo(explanation(metrics))
    typer.echo(f"written to {folder.metrics}")


def _meaning(kind: type, name: str, names: Iterable[str] = ()) -> Any:
    """An option of the command line that means what the library's option of that name does; ``names`` it may have."""
    summary = options_of(kind)[name].summary
    return typer.Option(help=f"{summary} {', '.join(names)}." if names else summary)


def _sides(numbers: list[float] | None) -> float | tuple[float, ...] | None:
    """One number for both sides, or as many as were given."""
    if not numbers:
        return None
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


@app.command()
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

    Options with a pair for the two sides are given twice. The interval belongs to the entropic value.

    Example: [bold]sinkdiv distance a.npy b.npy --blur 0.05 --plan plan.npz[/bold]
    """
    from sinkdiv.pointfiles import measure_distance, read_pair, write_plan

    points = read_pair(first, second, weights_a, weights_b)
    how = {"max_passes": max_passes, "precision": precision, "progress": progress}
    what = {"blur": blur, "eps": eps, "cost": cost, "reach": _sides(reach), "rho": _sides(rho), "tol": tol}
    divergence, summary = measure_distance(*points, what, value, solver, how)
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


@app.command()
def info() -> None:
    """Versions, kernels in use, threads.

    Example: [bold]sinkdiv info[/bold]
    """
    import torch

    import sinkdiv
    from sinkdiv import kernels

    table = Table(show_header=False)
    table.add_row("sinkdiv", sinkdiv.__version__)
    table.add_row("python", platform.python_version())
    for package in PACKAGES:
        table.add_row(package, _version(package))
    devices = kernels.describe()
    for device, kernel in devices:
        table.add_row(f"kernel on {device}", kernel)
    if len(devices) == 1:
        table.add_row("GPU", "none that PyTorch finds")
    table.add_row("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    Console().print(table)


def _existing_run(root: Path) -> "RunFolder":
    from sinkdiv.generative.runs import RunFolder

    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    return RunFolder(root)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
