"""Runs of the trainer as parts of an experiment: trained when they are not, continued when they were interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from sinkdiv.generative.config import RunConfig
from sinkdiv.generative.runs import RunFolder, resumed_config
from sinkdiv.generative.training import resume, start, train


def trained(root: Path, kind: type[RunConfig], given: dict[str, Any]) -> RunFolder:
    """The run in `root` with the settings `given`, trained now as far as it is not.

    Raises:
        InputError: if the folder holds a run with other settings.
        KeyboardInterrupt: on Ctrl-C, when the state of the run is saved.
    """
    run = RunFolder(root)
    if run.exists():
        config = resumed_config(run, kind, given)
        if run.is_finished(config):
            return run
        training = resume(run, config)
    else:
        training = start(run, kind, given)
    if train(training, Console(stderr=True))["interrupted"]:
        raise KeyboardInterrupt
    return run
