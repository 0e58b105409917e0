"""A run's folder: what lies where, and reading it back without trusting it."""

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sinkdiv.generative.callbacks import History
from sinkdiv.generative.config import RunConfig, load_config
from sinkdiv.generative.data import Images, load_images
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.models import Model, make_model
from sinkdiv.generative.settings import declarations, option


@dataclass(frozen=True)
class RunFolder:
    """The files of one training run below `root`."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def last(self) -> Path:
        """The state after the last whole epoch; training resumes here."""
        return self.checkpoints / "last.ckpt"

    @property
    def interrupted(self) -> Path:
        """The state at the step where the run was stopped inside an epoch; samples are drawn from it."""
        return self.checkpoints / "interrupted.ckpt"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.json"

    @property
    def samples(self) -> Path:
        return self.root / "samples.png"

    @property
    def reconstructions(self) -> Path:
        return self.root / "reconstructions.png"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return self.config.exists()

    def require_new(self) -> None:
        """Raise `InputError` where no new run can begin."""
        if self.exists():
            raise InputError(
                f"--out {self.root}: holds a run already; continue it with --resume or choose another folder"
            )
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"--out {self.root}: not a folder")

    def load_config(self) -> RunConfig:
        """The run's settings; raises `InputError` when the folder holds no run."""
        if not self.exists():
            raise InputError(f"{self.root}: no run here (there is no config.yaml)")
        return load_config(self.config)

    def load_metrics(self) -> dict[str, Any] | None:
        """The run's metrics, or None when it has not come to its end."""
        if not self.metrics.exists():
            return None
        try:
            metrics = json.loads(self.metrics.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.metrics}: not readable ({type(error).__name__})") from error
        if not (isinstance(metrics, dict) and isinstance(metrics.get("seconds"), dict)):
            raise InputError(f"{self.metrics}: not the metrics of a run")
        return metrics

    def is_finished(self, config: RunConfig) -> bool:
        """Whether the run has its report, and as many epochs as `config` asks for."""
        metrics = self.load_metrics()
        if metrics is None or metrics.get("interrupted") is not False:
            return False
        return int(metrics.get("epochs", 0)) >= config.max_epochs


@dataclass(frozen=True)
class Trained:
    """A model with its training behind it."""

    model: Model
    config: RunConfig
    history: History
    steps: int

    @property
    def epochs(self) -> int:
        """Whole epochs trained."""
        return len(self.history.rows)


def resumed_config(run: RunFolder, kind: type[RunConfig], chosen: Mapping[str, Any]) -> RunConfig:
    """The settings of a run that was started before, with the `chosen` changes; nothing is written.

    Raises:
        InputError: when there is no run, or a chosen setting contradicts it.
    """
    config = run.load_config()
    if type(config) is not kind:
        raise InputError(f"--resume: the run in {run.root} trains the {config.model}, not the {kind.model}")
    changeable = {name for name, declared in declarations(kind).items() if declared.changeable}
    for name, value in chosen.items():
        recorded = getattr(config, name)
        if name == "data" and Path(value).exists():
            value = str(Path(value).resolve())
        if name not in changeable and value != recorded:
            raise InputError(
                f"{option(name)} {value}: the run in {run.root} has {recorded}; leave it out, or start a new run"
            )
    return replace(config, **{name: value for name, value in chosen.items() if name in changeable})


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values; nothing in the file is executed.

    Raises:
        InputError: when the file is missing, damaged, or holds anything else, such as pickled objects.
    """
    try:
        with warnings.catch_warnings():
            # torch comments on foreign pickles before it refuses them.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no checkpoint here; the run has not finished its first epoch") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: refused: it holds more than tensors and plain values") from error
    # What torch raises on a damaged archive depends on where the damage is.
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    if not isinstance(content, dict) or not {"state_dict", "callbacks", "global_step"} <= content.keys():
        raise InputError(f"{path}: not the checkpoint of a sinkdiv run")
    return content


def load_run(run: RunFolder) -> Trained:
    """The run's model as it was last saved, on the CPU, in evaluation mode.

    Raises:
        InputError: when the folder holds no run, or a file in it is missing, damaged or foreign.
    """
    config = run.load_config()
    return restore(run, config, make_model(config))


def restore(run: RunFolder, config: RunConfig, model: Model) -> Trained:
    """Put the state that the run last saved into its `model`; raises like `load_run`."""
    path = run.interrupted if run.interrupted.exists() else run.last
    history, steps = load_state(run, path, model)
    return Trained(model.cpu().eval().requires_grad_(False), config, history, steps)


def load_state(run: RunFolder, path: Path, model: Model) -> tuple[History, int]:
    """Put a checkpoint's weights into the run's `model`; returns the history and the number of steps beside them.

    Raises:
        InputError: when the file is missing, damaged or foreign, or of another model.
    """
    checkpoint, history = load_checkpoint(path), History()
    try:
        model.load_state_dict(checkpoint["state_dict"])
        history.load_state_dict(checkpoint["callbacks"][history.state_key])
        return history, int(checkpoint["global_step"])
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: does not belong to {run.config}") from error


def load_run_images(config: RunConfig) -> Images:
    """The images a run was trained on; raises `InputError` when they have changed since."""
    images = load_images(config.data, binarize=config.binarize)
    if images.fingerprint != config.data_fingerprint:
        raise InputError(f"--data {config.data}: the images have changed since this run began")
    return images
