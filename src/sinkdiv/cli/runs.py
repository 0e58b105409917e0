"""What commands on runs share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from sinkdiv.generative.errors import InputError

if TYPE_CHECKING:
    from sinkdiv.generative.runs import RunFolder


def existing_run(root: Path) -> "RunFolder":
    """The run in a folder that the user named; raises `InputError` when there is no such folder."""
    from sinkdiv.generative.runs import RunFolder

    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    return RunFolder(root)


def scores(metrics: dict[str, Any]) -> Table:
    """The scores of a run for a terminal."""
    from sinkdiv.generative.scores.table import score_table

    table = Table("", "model", "untrained", "training data")
    for row in score_table(metrics):
        table.add_row(*row)
    return table
