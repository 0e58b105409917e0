"""Settings of a training run, each declared once: its type, default, help and check.

A group of settings is a frozen dataclass below `Settings`, whose fields are made by `setting`. The options of
`sinkdiv train`, the checks, the defaults and the file `config.yaml` are all read from these fields.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, TypeVar

from sinkdiv.generative.data import Images
from sinkdiv.generative.errors import InputError


@dataclass(frozen=True)
class Check:
    """What a value must be: a test of it, and the words for what is expected."""

    holds: Callable[[Any], bool]
    expected: str


def at_least(least: int) -> Check:
    return Check(lambda value: value >= least, f"at least {least}")


def between(least: int, most: int) -> Check:
    return Check(lambda value: least <= value <= most, f"{least} to {most}")


def one_of(*names: str) -> Check:
    return Check(lambda value: value in names, " or ".join(names))


ABOVE_ZERO = Check(lambda value: 0 < value < math.inf, "a finite number above zero")
NOT_NEGATIVE = Check(lambda value: 0 <= value < math.inf, "zero or a finite number above it")
WIDTHS = Check(lambda value: len(value) > 0 and min(value) >= 1, "widths like 512,512")


@dataclass(frozen=True)
class Setting:
    """What is declared of a setting besides its name and its type.

    Attributes:
        help: a line for `--help`; without it the setting is no option of the command line.
        default: the default where it is always the same.
        derive: the default where it depends on other settings or on the images.
        shown: how `--help` describes such a default.
        check: what its values must be.
        only_with: (name, value) of the setting without which this one means nothing.
        changeable: whether a run may be continued with another value.
    """

    help: str = ""
    default: Any = dataclasses.field(default_factory=lambda: MISSING)
    derive: Callable[[Draft], Any] | None = None
    shown: str = ""
    check: Check | None = None
    only_with: tuple[str, str] | None = None
    changeable: bool = False


def setting(help: str = "", **declared: Any) -> Any:
    """A field of a group of settings; the arguments are the attributes of `Setting`."""
    found = Setting(help, **declared)
    return dataclasses.field(default=found.default, metadata={"setting": found})


@dataclass(frozen=True)
class Alias:
    """An option of the command line that says a setting in other words.

    Attributes:
        setting: the setting's name.
        help: a line for `--help`.
        convert: the option's number and the settings that the user chose, to the setting's value.
    """

    setting: str
    help: str
    convert: Callable[[float, Mapping[str, Any]], Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A group of settings, checked when it is made.

    Raises:
        InputError: naming the option that is wrong.
    """

    #: The heading of the group's options in `--help`.
    panel: ClassVar[str] = ""
    #: (name, value) of the setting without which the whole group means nothing.
    only_with: ClassVar[tuple[str, str] | None] = None

    def __post_init__(self) -> None:
        for name, declared in declarations(type(self)).items():
            if declared.check is not None:
                value = getattr(self, name)
                require(declared.check.holds(value), name, value, declared.check.expected)
        self.check_together()

    def check_together(self) -> None:
        """Raise `InputError` where settings do not go together; a group that has something to check extends this."""


Group = TypeVar("Group", bound=Settings)


class Draft:
    """The settings of a new run while they are being settled: `draft.eps` is what was chosen, or else the default.

    A default that depends on other settings asks for them in the same way.

    Attributes:
        chosen: the names of the settings that the user gave.
        images: what will be trained on.
    """

    def __init__(self, kind: type[Settings], chosen: Mapping[str, Any], images: Images) -> None:
        self.chosen, self.images = frozenset(chosen), images
        self._values = dict(chosen)
        self._declarations = declarations(kind)

    def __getattr__(self, name: str) -> Any:
        if name not in self._values:
            declared = self._declarations[name]
            self._values[name] = declared.default if declared.derive is None else declared.derive(self)
        return self._values[name]


def settle(kind: type[Group], chosen: Mapping[str, Any], images: Images) -> Group:
    """The settings of a new run: what the user chose, and what goes well with it and with the images.

    Raises:
        InputError: for a wrong value, for settings that do not go together, and for one that would mean nothing.
    """
    draft = Draft(kind, chosen, images)
    for name, declared in declarations(kind).items():
        # Its own group's: what a model is composed of says nothing about the model's other settings.
        needed = declared.only_with or vars(group_of(kind, name)).get("only_with")
        if name in draft.chosen and needed and getattr(draft, needed[0]) != needed[1]:
            other, value = needed
            raise InputError(f"{option(name)}: only {option(other)} {value} has it, not {getattr(draft, other)}")
    return kind(**{name: getattr(draft, name) for name in declarations(kind)})


def declarations(kind: type[Settings]) -> dict[str, Setting]:
    """What is declared of each setting of a group, in order."""
    return {field.name: field.metadata["setting"] for field in dataclasses.fields(kind)}


def group_of(kind: type[Settings], name: str) -> type[Settings]:
    """The group that brings the setting `name` into `kind`: one that it is composed of, or `kind` itself."""
    for base in kind.__bases__:
        if issubclass(base, Settings) and name in declarations(base):
            return base
    return kind


def option(name: str) -> str:
    """A setting's name on the command line."""
    return "--" + name.replace("_", "-")


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise the `InputError` of a wrong setting unless `condition` holds."""
    if not condition:
        raise InputError(f"{option(name)} {value}: expected {expected}")
