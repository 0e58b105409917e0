"""The commands of `sinkdiv`: what they accept and print. Heavy packages are imported by the commands that need them."""

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sinkdiv.generative.errors import InputError

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
train_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(train_app, name="train")

INTERRUPTED = 130
MISTAKE = 2
PACKAGES = ("torch", "numpy", "lightning", "torchmetrics", "scikit-learn", "matplotlib")


class _TrainingInterruptedError(Exception):
    """Training ended early at the user's wish; the message says how to go on."""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; a user's mistake becomes one line on stderr and code 2."""
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="sinkdiv")
    except InputError as error:
        return _fail(str(error), MISTAKE)
    except _TrainingInterruptedError as error:
        return _fail(str(error), INTERRUPTED)
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


@train_app.callback()
def train() -> None:
    """Train a generative model.

    Example: [bold]sinkdiv train autoencoder --out runs/sae[/bold]
    """


@train_app.command("autoencoder")
def train_autoencoder(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    data: Annotated[
        str, typer.Option(help="mnist-5k, digits, mnist, fashion-mnist, or a folder, .zip, .npz or .npy of images.")
    ] = "mnist-5k",
    prior: Annotated[str, typer.Option(help="Prior of the codes: sphere or normal.")] = "sphere",
    latent_dim: Annotated[int | None, typer.Option(help="Dimension of the codes.", show_default="by data")] = None,
    hidden: Annotated[
        str | None, typer.Option(help="Widths of the hidden layers, like 512,512.", show_default="by data")
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight of the latent divergence.", show_default="100 sphere, 10 normal")
    ] = None,
    eps: Annotated[
        float | None, typer.Option(help="Regularisation of the latent divergence.", show_default="0.5 sphere, 5 normal")
    ] = None,
    blur: Annotated[float | None, typer.Option(help="The same as a length: eps = 2 blur².")] = None,
    batch_size: Annotated[int, typer.Option(help="Images in a step.")] = 128,
    lr: Annotated[float, typer.Option(help="Adam's step size.")] = 1e-3,
    max_epochs: Annotated[int | None, typer.Option(help="Passes over the images.", show_default="by data")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order of images and the prior's draws.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
) -> None:
    """Train a Sinkhorn autoencoder, then write samples, metrics and a report.

    A deterministic encoder and decoder are trained on reconstruction plus the debiased Sinkhorn divergence between
    codes and prior. Ctrl-C ends it after the current step with everything saved; --resume goes on.

    Example: [bold]sinkdiv train autoencoder --data mnist-5k --prior sphere --out runs/sae[/bold]
    """
    started = time.perf_counter()
    options = {
        "data": data,
        "prior": prior,
        "latent_dim": latent_dim,
        "hidden": None if hidden is None else _widths(hidden),
        "beta": beta,
        "eps": _eps(eps, blur),
        "batch_size": batch_size,
        "lr": lr,
        "max_epochs": max_epochs,
        "seed": seed,
        "accelerator": accelerator,
    }

    from sinkdiv.generative import training
    from sinkdiv.generative.runs import RunFolder

    run = RunFolder(out)
    console = Console()
    if resume:
        chosen = {name for name in options if _was_typed(context, name)} | ({"eps"} if blur is not None else set())
        config = training.continued_config(run, {name: options[name] for name in chosen})
        if training.is_finished(run, config):
            message = f"{out} is finished, its report is {run.report}; give a larger --max-epochs to go on"
            console.print(message, soft_wrap=True)
            return
        images = training.reopen(run, config)
    else:
        config, images = training.new_run(run, {name: value for name, value in options.items() if value is not None})
    console.print(
        f"{config.data}: {len(images.train)} images, {len(images.held_out)} held out; "
        f"{config.prior} prior in {config.latent_dim} dimensions, β = {config.beta:g}, ε = {config.eps:g}",
        soft_wrap=True,
    )
    how_to_go_on = f"go on: sinkdiv train autoencoder --out {out} --resume"
    try:
        metrics = training.train(run, config, images, console)
    except KeyboardInterrupt as error:
        raise _TrainingInterruptedError(f"interrupted; {how_to_go_on}") from error
    console.print(_scores(metrics))
    console.print(f"{time.perf_counter() - started:.0f} s in all; the report is {run.report}", soft_wrap=True)
    if metrics["interrupted"]:
        raise _TrainingInterruptedError(f"interrupted in epoch {metrics['epochs'] + 1}; {how_to_go_on}")


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
    from sinkdiv.generative.training import sample_grid

    picture = sample_grid(load_run(_existing_run(run)), count, seed)
    try:
        write_image(out, picture)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from error
    typer.echo(f"{count} samples in {out}")


@app.command()
def evaluate(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Score a trained run again and rewrite its metrics.json.

    Example: [bold]sinkdiv evaluate runs/sae[/bold]
    """
    from sinkdiv.generative import training

    folder = _existing_run(run)
    Console().print(_scores(training.evaluate(folder)))
    typer.echo(f"written to {folder.metrics}")


@app.command()
def distance(
    first: Annotated[Path, typer.Argument(help="Points (n, d): .npy, .npz with one array, or .csv of numbers.")],
    second: Annotated[Path, typer.Argument(help="Points (m, d).")],
    blur: Annotated[float | None, typer.Option(help="Regularisation as a length.")] = None,
    eps: Annotated[float | None, typer.Option(help="Regularisation in units of the cost.")] = None,
    cost: Annotated[str, typer.Option(help="sqeuclidean or euclidean.")] = "sqeuclidean",
    tol: Annotated[float, typer.Option(help="Marginal error to reach.")] = 1e-3,
    weights_a: Annotated[Path | None, typer.Option(help="Weights (n,) of the first points.")] = None,
    weights_b: Annotated[Path | None, typer.Option(help="Weights (m,) of the second points.")] = None,
    plan: Annotated[Path | None, typer.Option(help="Write the (n, m) transport plan to this .npz.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The Sinkhorn divergence of two point sets, with its interval.

    Example: [bold]sinkdiv distance a.npy b.npy --blur 0.05 --plan plan.npz[/bold]
    """
    from sinkdiv.pointfiles import measure_distance, read_pair, write_plan

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
    for device, kernel in kernels.describe():
        table.add_row(f"kernel on {device}", kernel)
    table.add_row("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    table.add_row("GPU", gpu)
    Console().print(table)


def _existing_run(root: Path) -> "RunFolder":
    from sinkdiv.generative.runs import RunFolder

    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    return RunFolder(root)


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError as error:
        raise InputError(f"--hidden {text}: expected widths like 512,512") from error


def _eps(eps: float | None, blur: float | None) -> float | None:
    if blur is None:
        return eps
    if eps is not None:
        raise InputError("--eps and --blur: give one of them")
    if not blur > 0:
        raise InputError(f"--blur {blur}: expected more than zero")
    return 2 * blur**2


def _scores(metrics: dict[str, Any]) -> Table:
    from sinkdiv.generative.metrics import score_table

    table = Table("", "model", "untrained", "training data")
    for row in score_table(metrics):
        table.add_row(*row)
    return table


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
