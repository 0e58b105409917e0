"""Runs of the trainer as parts of an experiment: trained when they are not, continued when they were interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from sinkdiv.generative import opening, training
from sinkdiv.generative.config import RunConfig
from sinkdiv.generative.runs import RunFolder


def trained(root: Path, kind: type[RunConfig], given: dict[str, Any]) -> RunFolder:
    """The run in `root` with the settings `given`, trained now as far as it is not.

    Raises:
        InputError: if the folder holds a run with other settings.
        KeyboardInterrupt: on Ctrl-C, when the state of the run is saved.
    """
    run = RunFolder(root)
    if run.exists():
        config = opening.continued_config(run, kind, given)
        if opening.is_finished(run, config):
            return run
        images = opening.reopen(run, config)
    else:
        config, images = opening.new_run(run, kind, given)
    if training.train(run, config, images, Console(stderr=True))["interrupted"]:
        raise KeyboardInterrupt
    return run
