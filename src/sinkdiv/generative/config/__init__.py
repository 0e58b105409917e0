"""What a training run is: its settings, and the file they are kept in.

A new model declares its settings in a file here and adds itself to `CONFIGS`; its command follows from them.
"""

import typing
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from sinkdiv.generative.config.autoencoder import AutoencoderConfig
from sinkdiv.generative.config.generator import GeneratorConfig
from sinkdiv.generative.config.run import RunConfig
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.files import write_text
from sinkdiv.generative.settings import declarations

__all__ = ["CONFIGS", "AutoencoderConfig", "GeneratorConfig", "RunConfig", "load_config", "save_config"]

#: How the names of models, in the file and on the command line, lead to their settings.
CONFIGS: dict[str, type[RunConfig]] = {kind.model: kind for kind in (AutoencoderConfig, GeneratorConfig)}


def save_config(config: RunConfig, path: Path) -> None:
    """Write the settings to `path` as YAML, atomically."""
    content = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    write_text(path, yaml.safe_dump({"model": config.model} | content, sort_keys=False))


def load_config(path: Path) -> RunConfig:
    """Read what `save_config` wrote; raises `InputError` naming the file when it is something else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a readable configuration ({type(error).__name__})") from error
    kind = CONFIGS.get(str(content.pop("model", None))) if isinstance(content, dict) else None
    if kind is None:
        raise InputError(f"{path}: not the configuration of a sinkdiv run")
    names = declarations(kind).keys()
    if content.keys() != names:
        odd = sorted(str(key) for key in content.keys() ^ names)
        raise InputError(f"{path}: missing or unknown settings: {', '.join(odd)}")
    return kind(**_typed(path, kind, content))


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list):
        raise TypeError
    return tuple(_integer(value) for value in values)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


_CASTS: dict[object, Callable[[Any], Any]] = {
    int: _integer,
    float: float,
    str: str,
    bool: _boolean,
    tuple[int, ...]: _integers,
}


def _typed(path: Path, kind: type[RunConfig], content: dict[str, Any]) -> dict[str, Any]:
    """YAML's values as the types of the settings, refusing what cannot be meant (`latent_dim: ten`)."""
    types = typing.get_type_hints(kind)
    typed: dict[str, Any] = {}
    for name, value in content.items():
        try:
            typed[name] = _CASTS[types[name]](value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: {name}: {value!r} is not valid") from error
    return typed
