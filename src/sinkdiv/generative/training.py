"""A training run on one page: settings, images, model, steps with their checkpoints, report.

`sinkdiv train` calls `start` (or `resume`), which settles all that a run needs, and `train`, which takes the steps and
writes the results. The loss step is the model's: `training_step` in `models/autoencoder.py` or `models/generator.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from torch import Tensor

from sinkdiv.generative.callbacks import EpochCheckpoint, History, StopOnSignal, StoppedError, TrainingBar
from sinkdiv.generative.config import RunConfig, save_config
from sinkdiv.generative.data import Images, held_out_loader, load_images, training_loader
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.failures import FailureDetector, TrainingFailure, grace_steps
from sinkdiv.generative.launcher import Group, check_machine, launched
from sinkdiv.generative.models import Model, make_model
from sinkdiv.generative.results import describe, write_results
from sinkdiv.generative.runs import RunFolder, load_run_images, load_state, restore
from sinkdiv.generative.seeds import Stream
from sinkdiv.generative.settings import settle
from sinkdiv.generative.trainer import make_trainer, quiet

#: Stands for images that are not read yet.
PLACEHOLDER = Images("", (1, 28, 28), torch.eye(28 * 28), torch.zeros(0, 28 * 28), None, None, "")
SAMPLES_CHECKED = 64


@dataclass(frozen=True)
class Training:
    """All that a run needs, settled before any work."""

    run: RunFolder
    config: RunConfig
    images: Images
    model: Model
    #: A copy of the model as it was made, to compare with.
    untrained: Model

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self.images.train) // self.config.batch_size


def start(run: RunFolder, kind: type[RunConfig], chosen: Mapping[str, Any]) -> Training:
    """Settle the settings of a new run, read its images, make its model and write its settings to its folder.

    Args:
        run: where it will live.
        kind: the model's settings.
        chosen: fields of `kind` the user chose; defaults that go with them and with the images fill the others.

    Raises:
        InputError: when a setting is wrong, the data cannot be read, or the folder holds a run already.
    """
    run.require_new()
    # Checked before the images are read, so that a wrong option does not wait for a download.
    config = settle(kind, chosen, PLACEHOLDER)
    check_machine(config.accelerator, config.devices, config.precision)
    images = load_images(config.data, binarize=config.binarize)
    kind.check_images(images)
    training = _make(run, settle(kind, {**chosen, "data": images.name}, images), images)
    try:
        save_config(training.config, run.config)
    except OSError as error:
        raise InputError(f"--out {run.root}: cannot be written ({error.strerror})") from error
    return training


def resume(run: RunFolder, config: RunConfig) -> Training:
    """Read the images of a run that was started before, and write the settings it continues with to its folder.

    Raises:
        InputError: when the run is past `config.max_epochs`, or its images are not what they were.
    """
    check_machine(config.accelerator, config.devices, config.precision)
    training = _make(run, config, load_run_images(config))
    if run.last.exists():
        epochs = len(load_state(run, run.last, training.model)[0].rows)
        if epochs > config.max_epochs:
            raise InputError(f"--max-epochs {config.max_epochs}: the run in {run.root} has {epochs} epochs already")
    save_config(config, run.config)
    return training


def join(run: RunFolder) -> Training:
    """What a process needs to share the batches of a run that another one leads."""
    config = run.load_config()
    return _make(run, config, load_run_images(config))


def _make(run: RunFolder, config: RunConfig, images: Images) -> Training:
    if config.batch_size > len(images.train):
        raise InputError(f"--batch-size {config.batch_size}: there are {len(images.train)} training images")
    batches = config.max_epochs * (len(images.train) // config.batch_size)
    if batches < config.turns:
        raise InputError(f"--critic-steps {config.turns - 1}: the generator would never move in {batches} batches")
    model = make_model(config, batches)
    return Training(run, config, images, model, model.frozen_copy())


def train(training: Training, console: Console) -> dict[str, Any]:
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
    run, config, images = training.run, training.config, training.images
    with launched(run.root, config.accelerator, config.devices) as group:
        failure = fit(training, console, group)
    if not (run.last.exists() or run.interrupted.exists()):
        raise failure or KeyboardInterrupt
    trained = restore(run, config, training.model)
    about = describe(trained, images, failure.reason if failure else None)
    return write_results(run, trained, training.untrained, images, about)


def fit(training: Training, console: Console, group: Group) -> TrainingFailure | None:
    """Take every step of the training as one process of `group`; returns how it failed, if it did."""
    run, config, images, model = training.run, training.config, training.images, training.model
    history, stop = History(), StopOnSignal(run.interrupted)
    failures = FailureDetector(
        draw_samples if config.trains_samples else None,
        images.mean_squared_distance,
        grace=grace_steps(config.max_epochs * training.steps, config.turns),
    )
    checkpoints = EpochCheckpoint(run.last, run.interrupted)
    callbacks = [failures, history, TrainingBar(console, history), stop, checkpoints]
    with stop.listening(), quiet(), torch.random.fork_rng(devices=[]):
        trainer = make_trainer(run.root, config, group, training.steps, callbacks)
        loader = training_loader(images, config.batch_size, config.seed, group.rank, group.size)
        try:
            resume_from = run.last if run.last.exists() else None
            trainer.fit(model, loader, held_out_loader(images), ckpt_path=resume_from)
        except StoppedError:
            pass
        except TrainingFailure as failure:
            return TrainingFailure(f"step {trainer.global_step}: {failure.reason}")
        except (SystemExit, SIGTERMException) as ending:
            # A second Ctrl-C, on which Lightning would end the process, or SIGTERM: no time for a report.
            raise KeyboardInterrupt from ending
        finally:
            # The model outlives its trainer, and what that holds: optimisers, a group of processes.
            model.trainer = None
    return None


def draw_samples(model: Any, step: int) -> Tensor:
    """Samples (n, pixels) in which the failure detector looks for a collapse at a step."""
    samples: Tensor = model.draw(SAMPLES_CHECKED, Stream.EVALUATION, step)
    return samples
