"""`sinkdiv sample`: images of a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from sinkdiv.cli.runs import existing_run
from sinkdiv.generative.errors import InputError


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
    from sinkdiv.generative.report.sections import sample_grid
    from sinkdiv.generative.runs import load_run

    picture = sample_grid(load_run(existing_run(run)).model, count, seed)
    try:
        write_image(out, picture)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from error
    typer.echo(f"{count} samples in {out}")
