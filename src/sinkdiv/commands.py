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
    from sinkdiv.generative.config import RunConfig
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


# The options of every model.
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Data = Annotated[
    str, typer.Option(help="mnist-5k, digits, mnist, fashion-mnist, or a folder, .zip, .npz or .npy of images.")
]
Binarize = Annotated[bool, typer.Option("--binarize", help="Round pixels to 0 and 1.")]
BatchSize = Annotated[int, typer.Option(help="Images in a step, over all devices.")]
LearningRate = Annotated[float, typer.Option(help="The optimiser's step size.")]
MaxEpochs = Annotated[int | None, typer.Option(help="Passes over the images.", show_default="by data")]
Seed = Annotated[int, typer.Option(help="Of the weights, the order of images and every draw.")]
Accelerator = Annotated[str, typer.Option(help="auto, cpu or gpu.")]
Devices = Annotated[int, typer.Option(help="Processes that share each batch; losses see all of it.")]
Precision = Annotated[str, typer.Option(help="float32, or mixed: bfloat16 or float16.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")]


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
    out: Out,
    data: Data = "mnist-5k",
    binarize: Binarize = False,
    method: Annotated[
        str, typer.Option(help="sae, or a baseline: ae, vae, beta-vae, hvae, wae, swae, w2gae, hae, energy.")
    ] = "sae",
    prior: Annotated[
        str,
        typer.Option(
            help="Prior of the codes: sphere, normal, uniform, torus, dirichlet:0.5, mixture:10; a distribution of "
            "torch.distributions like Laplace(0,1); or a product like sphere@10*normal@3."
        ),
    ] = "sphere",
    latent_dim: Annotated[int | None, typer.Option(help="Dimension of the codes.", show_default="by data")] = None,
    network: Annotated[str, typer.Option(help="mlp, conv or placed.")] = "mlp",
    hidden: Annotated[
        str | None, typer.Option(help="Widths of the hidden layers, like 512,512.", show_default="by data")
    ] = None,
    likelihood: Annotated[
        str | None, typer.Option(help="bernoulli or gaussian.", show_default="gaussian for colour")
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight of the latent loss.", show_default="by method; sae: 100 sphere")
    ] = None,
    eps: Annotated[
        float | None, typer.Option(help="Regularisation of the latent divergence.", show_default="by prior; 0.5 sphere")
    ] = None,
    blur: Annotated[float | None, typer.Option(help="The same as a length: eps = 2 blur².")] = None,
    latent_cost: Annotated[str, typer.Option(help="sqeuclidean, euclidean or geodesic.")] = "sqeuclidean",
    value: Annotated[str, typer.Option(help="entropic, or sharp as in the paper.")] = "entropic",
    debias: Annotated[bool, typer.Option(help="The divergence, or the transport cost itself.")] = True,
    derivative: Annotated[str, typer.Option(help="Of the value: auto, implicit or unrolled.")] = "auto",
    iterations: Annotated[int, typer.Option(help="Of an unrolled derivative.", show_default=False)] = 0,
    rounding: Annotated[bool, typer.Option("--rounding", help="Round the plan to exact marginals.")] = False,
    warm_start: Annotated[bool, typer.Option("--warm-start", help="Start where the last step's solve ended.")] = False,
    batch_size: BatchSize = 128,
    lr: LearningRate = 1e-3,
    max_epochs: MaxEpochs = None,
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    precision: Precision = "float32",
    resume: Resume = False,
) -> None:
    """Train a Sinkhorn autoencoder or one of its baselines, then write samples, metrics and a report.

    A deterministic encoder and decoder are trained on reconstruction plus the debiased Sinkhorn divergence between
    codes and prior; --method puts another latent loss in its place. Ctrl-C ends it after the current step with
    everything saved; --resume goes on.

    Example: [bold]sinkdiv train autoencoder --data mnist-5k --prior sphere --out runs/sae[/bold]
    """
    from sinkdiv.generative.config import AutoencoderConfig

    given = _typed_options(context)
    if hidden is not None:
        given["hidden"] = _widths(hidden)
    if (chosen_eps := _eps(eps, blur)) is not None:
        given["eps"] = chosen_eps
    _train(AutoencoderConfig, given, out, resume)


def _typed_options(context: typer.Context) -> dict[str, Any]:
    """The settings that the user gave among a command's options; the others are the model's to fill."""
    kept = context.params.keys() - {"out", "resume", "blur"}
    return {name: context.params[name] for name in sorted(kept) if _was_typed(context, name)}


def _train(kind: "type[RunConfig]", given: dict[str, Any], out: Path, resume: bool) -> None:
    """Start or continue a run of the model whose settings are `kind`, and say how it went."""
    started = time.perf_counter()

    from sinkdiv.generative import opening, training
    from sinkdiv.generative.runs import RunFolder

    run = RunFolder(out)
    console = Console()
    if resume:
        config = opening.continued_config(run, kind, given)
        if opening.is_finished(run, config):
            message = f"{out} is finished, its report is {run.report}; give a larger --max-epochs to go on"
            console.print(message, soft_wrap=True)
            return
        images = opening.reopen(run, config)
    else:
        config, images = opening.new_run(run, kind, given)
    title, summary = config.described
    console.print(f"{title}: {len(images.train)} images, {len(images.held_out)} held out; {summary}", soft_wrap=True)
    how_to_go_on = f"go on: sinkdiv train {config.model} --out {out} --resume"
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
    from sinkdiv.generative.showing import sample_grid

    picture = sample_grid(load_run(_existing_run(run)).model, count, seed)
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
    from sinkdiv.generative import finishing

    folder = _existing_run(run)
    Console().print(_scores(finishing.evaluate(folder)))
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
