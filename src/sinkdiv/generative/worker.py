"""A process that shares the batches of a run which another process leads, and ends when that does.

Started as `python -m sinkdiv.generative.worker RUN ACCELERATOR RANK SIZE PORT` by `launcher`.
"""

import os
import sys
import threading
from pathlib import Path

from rich.console import Console

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.launcher import MISTAKE, READY, Group, connected, open_store
from sinkdiv.generative.runs import RunFolder
from sinkdiv.generative.training import fit, join


def work(run: Path, accelerator: str, group: Group) -> None:
    """Take part in the run, or tell the leader which mistake of the user prevents it."""
    store = open_store(group)
    try:
        training = join(RunFolder(run))
        store.add(READY, 1)
        with connected(store, group, accelerator):
            fit(training, Console(quiet=True), group)
    except InputError as error:
        store.set(MISTAKE, str(error))
        sys.exit(1)


def _end_with_leader() -> None:
    # The leader holds the other end, which the system closes however the leader ends.
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_leader, daemon=True).start()
    _, folder, kind, *numbers = sys.argv
    work(Path(folder), kind, Group(*map(int, numbers)))
