"""A run's training: from the last whole epoch, or from the start, to its report."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from torch import Tensor

from sinkdiv.generative.callbacks import (
    EpochCheckpoint,
    History,
    StopOnSignal,
    StoppedError,
    TrainingBar,
    WholeCheckpoints,
)
from sinkdiv.generative.config import RunConfig
from sinkdiv.generative.data import Images, held_out_loader, training_loader
from sinkdiv.generative.finishing import finish
from sinkdiv.generative.models import make_model
from sinkdiv.generative.processes import Group, leading, uses_gpu
from sinkdiv.generative.runs import RunFolder, load_checkpoint, load_run
from sinkdiv.generative.seeds import Stream
from sinkdiv.generative.watch import TrainingFailure, Watch, grace_of, spread

# The settings' names of precisions, as the trainer knows them.
PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
SAMPLES_WATCHED = 64

_NOISE = (
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*The number of training batches .* is smaller than the logging interval.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*LeafSpec.*is deprecated.*",
    ".*GPU available but not used.*",
    ".*The dirpath has changed from.*",
)


def train(run: RunFolder, config: RunConfig, images: Images, console: Console) -> dict[str, Any]:
    """Train from the last whole epoch, or from the start, then write samples, metrics and a report.

    With several devices, other processes read the settings that the run's folder holds and share the batches. On
    Ctrl-C the step is finished, its state saved, and everything is written as usual, marked as interrupted.

    The same, marked as failed, is done with the last whole epoch when training fails.

    Returns:
        What was written to `metrics.json`.

    Raises:
        KeyboardInterrupt: on Ctrl-C before the first step was finished.
        TrainingFailure: in the first epoch, when there is nothing to write about.
    """
    with leading(run.root, config.accelerator, config.devices) as group:
        failure = _fit(run, config, images, console, group)
    if not (run.last.exists() or run.interrupted.exists()):
        raise failure or KeyboardInterrupt
    return finish(run, load_run(run), images, failure.reason if failure else None)


def join(run: RunFolder, config: RunConfig, images: Images, group: Group) -> None:
    """Share the batches of a run that another process leads."""
    _fit(run, config, images, Console(quiet=True), group)


def _fit(run: RunFolder, config: RunConfig, images: Images, console: Console, group: Group) -> TrainingFailure | None:
    history, stop = History(), StopOnSignal(run.interrupted)
    steps = len(images.train) // config.batch_size
    resume_from = run.last if run.last.exists() else None
    if resume_from:
        load_checkpoint(resume_from)
    with stop.listening(), _quiet(), torch.random.fork_rng(devices=[]):
        trainer = Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            strategy="ddp" if config.devices > 1 else "auto",
            precision=PRECISIONS[config.precision],
            max_epochs=config.max_epochs,
            callbacks=[
                Watch(
                    _watched if config.trains_samples else None,
                    spread(images.train),
                    grace=grace_of(config.max_epochs * steps, config.turns),
                ),
                history,
                TrainingBar(console, history),
                stop,
                EpochCheckpoint(run.last, run.interrupted),
            ],
            logger=_loggers(run.root),
            plugins=[WholeCheckpoints(), group],
            sync_batchnorm=config.devices > 1 and uses_gpu(config.accelerator),
            default_root_dir=run.root,
            log_every_n_steps=steps,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        loader = training_loader(images, config.batch_size, config.seed, group.rank, group.size)
        model = make_model(config, config.max_epochs * steps)
        try:
            trainer.fit(model, loader, held_out_loader(images), ckpt_path=resume_from)
        except StoppedError:
            pass
        except TrainingFailure as failure:
            return TrainingFailure(f"step {trainer.global_step}: {failure.reason}")
        except (SystemExit, SIGTERMException) as ending:
            # A second Ctrl-C, on which Lightning would end the process, or SIGTERM: no time for a report.
            raise KeyboardInterrupt from ending
    return None


def _watched(model: Any, step: int) -> Tensor:
    samples: Tensor = model.draw(SAMPLES_WATCHED, Stream.EVALUATION, step)
    return samples


def _loggers(root: Path) -> list[CSVLogger | TensorBoardLogger]:
    # A new version per attempt: Lightning's CSV logger would delete the rows of the attempt before.
    attempt = len(list((root / "logs").glob("version_*")))
    return [
        CSVLogger(root, name="logs", version=attempt),
        TensorBoardLogger(root, name="tensorboard", version=attempt),
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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
