"""`sinkdiv evaluate`: the scores of a trained run, once more."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sinkdiv.cli.runs import existing_run, scores


def evaluate(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Score a trained run again and rewrite its metrics.json and report.

    Example: [bold]sinkdiv evaluate runs/sae[/bold]
    """
    from sinkdiv.generative import results
    from sinkdiv.generative.scores.table import explanation

    folder = existing_run(run)
    metrics = results.evaluate(folder)
    Console().print(scores(metrics))
    typer.echo(explanation(metrics))
    typer.echo(f"written to {folder.metrics}")
