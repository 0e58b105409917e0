"""The commands that train: `sinkdiv train …`. Heavy packages are imported when one of them runs."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sinkdiv.generative.errors import InputError

if TYPE_CHECKING:
    from sinkdiv.generative.config import RunConfig

train_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

FAILED, INTERRUPTED = 1, 130

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


class TrainingEndedError(Exception):
    """Training ended early, at the user's wish or by failing; the message is for the user, the code for the shell."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


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
        str | None,
        typer.Option(
            help="Prior of the codes: sphere, normal, uniform, torus, dirichlet:0.5, mixture:10; a distribution of "
            "torch.distributions like Laplace(0,1); or a product like sphere@10*normal@3.",
            show_default="by method; sae: sphere",
        ),
    ] = None,
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
    blur: Annotated[
        float | None, typer.Option(help="The same as a length: eps = 2 blur², for euclidean eps = blur.")
    ] = None,
    latent_cost: Annotated[str, typer.Option(help="sqeuclidean, euclidean or geodesic.")] = "sqeuclidean",
    value: Annotated[str, typer.Option(help="entropic, or sharp as in the paper.")] = "entropic",
    debias: Annotated[str, typer.Option(help="self, independent (by halves of the batch) or none.")] = "self",
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
    if (chosen_eps := _eps(eps, blur, latent_cost)) is not None:
        given["eps"] = chosen_eps
    _train(AutoencoderConfig, given, out, resume)


@train_app.command("generator")
def train_generator(
    context: typer.Context,
    out: Out,
    data: Data = "mnist-5k",
    binarize: Binarize = False,
    prior: Annotated[str, typer.Option(help="Prior of the latents, as for an autoencoder.")] = "normal",
    latent_dim: Annotated[int | None, typer.Option(help="Dimension of the latents.", show_default="by data")] = None,
    network: Annotated[
        str | None, typer.Option(help="mlp or dcgan.", show_default="mlp; dcgan for colour, learned cost")
    ] = None,
    hidden: Annotated[
        str | None, typer.Option(help="Widths of the MLP's hidden layers, like 512,512.", show_default="by data")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Channels of DCGAN's finest stage.", show_default="32; colour: 64")
    ] = None,
    cost: Annotated[str, typer.Option(help="sqeuclidean, euclidean, or learned by a critic.")] = "sqeuclidean",
    eps: Annotated[
        float | None,
        typer.Option(help="Regularisation; inf is the MMD.", show_default="by data; learned: inf"),
    ] = None,
    value: Annotated[str, typer.Option(help="sharp as in the paper, or entropic.")] = "sharp",
    debias: Annotated[str, typer.Option(help="self, the divergence, or none.")] = "self",
    derivative: Annotated[str, typer.Option(help="Of the value: auto, implicit or unrolled.")] = "auto",
    iterations: Annotated[int, typer.Option(help="Of an unrolled derivative.", show_default=False)] = 0,
    critic_features: Annotated[int, typer.Option(help="Dimension of a learned cost's features.")] = 16,
    critic_steps: Annotated[int, typer.Option(help="Steps of the critic for one of the generator.")] = 1,
    critic_bound: Annotated[str, typer.Option(help="spectral, penalty, or clip as in the paper.")] = "spectral",
    optimizer: Annotated[str, typer.Option(help="adam or rmsprop.")] = "adam",
    batch_size: Annotated[
        int | None, typer.Option(help="Images in a step, over all devices.", show_default="200; learned: 100")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="The optimiser's step size.", show_default="0.001; learned: 0.0005")
    ] = None,
    max_epochs: MaxEpochs = None,
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    precision: Precision = "float32",
    resume: Resume = False,
) -> None:
    """Train a Sinkhorn generator, then write samples, metrics and a report.

    A network maps latents to images and is trained to minimise the Sinkhorn divergence between a batch of them and a
    batch of data. With --cost learned the cost is a distance of features, which a critic learns to make the divergence
    large. Ctrl-C ends training after the current step with everything saved; --resume goes on.

    Example: [bold]sinkdiv train generator --data mnist-5k --out runs/generator[/bold]
    """
    from sinkdiv.generative.config import GeneratorConfig

    given = _typed_options(context)
    if hidden is not None:
        given["hidden"] = _widths(hidden)
    _train(GeneratorConfig, given, out, resume)


def _typed_options(context: typer.Context) -> dict[str, Any]:
    """The settings that the user gave among a command's options; the others are the model's to fill."""
    kept = context.params.keys() - {"out", "resume", "blur"}
    return {name: context.params[name] for name in sorted(kept) if _was_typed(context, name)}


def _train(kind: "type[RunConfig]", given: dict[str, Any], out: Path, resume: bool) -> None:
    """Start or continue a run of the model whose settings are `kind`, and say how it went."""
    started = time.perf_counter()

    from sinkdiv.generative import opening, training
    from sinkdiv.generative.runs import RunFolder
    from sinkdiv.generative.watch import TrainingFailure

    run = RunFolder(out)
    console = Console()
    if resume:
        config = opening.continued_config(run, kind, given)
        if opening.is_finished(run, config):
            message = f"{out} is finished, its report is {run.report}; give a larger --max-epochs to go on"
            console.print(message, soft_wrap=True, markup=False)
            return
        images = opening.reopen(run, config)
    else:
        config, images = opening.new_run(run, kind, given)
    title, summary = config.described
    console.print(
        f"{title}: {len(images.train)} images, {len(images.held_out)} held out; {summary}", soft_wrap=True, markup=False
    )
    how_to_go_on = f"go on: sinkdiv train {config.model} --out {out} --resume"
    try:
        metrics = training.train(run, config, images, console)
    except KeyboardInterrupt as error:
        raise TrainingEndedError(f"interrupted; {how_to_go_on}", INTERRUPTED) from error
    except TrainingFailure as failure:
        raise TrainingEndedError(f"training failed: {failure}", FAILED) from failure
    console.print(scores(metrics))
    console.print(
        f"{time.perf_counter() - started:.0f} s in all; the report is {run.report}", soft_wrap=True, markup=False
    )
    if metrics["interrupted"]:
        raise TrainingEndedError(f"interrupted in epoch {metrics['epochs'] + 1}; {how_to_go_on}", INTERRUPTED)
    if metrics["failed"]:
        raise TrainingEndedError(f"training failed: {metrics['failed']}", FAILED)


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError as error:
        raise InputError(f"--hidden {text}: expected widths like 512,512") from error


def _eps(eps: float | None, blur: float | None, cost: str) -> float | None:
    if blur is None:
        return eps
    if eps is not None:
        raise InputError("--eps and --blur: give one of them")
    if not blur > 0:
        raise InputError(f"--blur {blur}: expected more than zero")
    return blur if cost == "euclidean" else 2 * blur * blur


def scores(metrics: dict[str, Any]) -> Table:
    """The scores of a run for a terminal."""
    from sinkdiv.generative.score_table import score_table

    table = Table("", "model", "untrained", "training data")
    for row in score_table(metrics):
        table.add_row(*row)
    return table
