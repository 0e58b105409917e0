"""Lightning's trainer, as a run needs it."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from sinkdiv.generative.callbacks import WholeCheckpoints
from sinkdiv.generative.config import RunConfig
from sinkdiv.generative.launcher import Group, uses_gpu

#: The settings' names of precisions, as the trainer knows them.
PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}

_NOISE = (
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*The number of training batches .* is smaller than the logging interval.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*LeafSpec.*is deprecated.*",
    ".*GPU available but not used.*",
    ".*The dirpath has changed from.*",
)


def make_trainer(root: Path, config: RunConfig, group: Group, steps: int, callbacks: Sequence[Callback]) -> Trainer:
    """The trainer of the run in the folder `root`, for a process that stands in `group`.

    Args:
        root: where it writes logs.
        config: the run's settings.
        group: the processes that share each batch.
        steps: batches in an epoch.
        callbacks: what happens around the steps.
    """
    return Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy="ddp" if config.devices > 1 else "auto",
        precision=PRECISIONS[config.precision],
        max_epochs=config.max_epochs,
        callbacks=list(callbacks),
        logger=_loggers(root),
        plugins=[WholeCheckpoints(), group],
        sync_batchnorm=config.devices > 1 and uses_gpu(config.accelerator),
        default_root_dir=root,
        log_every_n_steps=steps,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _loggers(root: Path) -> list[CSVLogger | TensorBoardLogger]:
    # A new version per attempt: Lightning's CSV logger would delete the rows of the attempt before.
    attempt = len(list((root / "logs").glob("version_*")))
    return [
        CSVLogger(root, name="logs", version=attempt),
        TensorBoardLogger(root, name="tensorboard", version=attempt),
    ]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's banners, tips, and advice about workers that images in memory do not need."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        for message in _NOISE:
            warnings.filterwarnings("ignore", message)
        try:
            for name in names:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
