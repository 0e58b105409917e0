"""Options that are declared once: the default, the meaning and the check of each, and where they show.

A function that takes ``**options: Unpack[Some]``, where ``Some`` is a TypedDict of `Annotated` options, shows each of
them with its default, its type and its meaning to `help`, to completion and to `inspect.signature`; mypy knows their
types from the TypedDict. The fields of a dataclass are declared in the same way (`option`).
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

#: The default of an option that has none.
REQUIRED = inspect.Parameter.empty

#: The columns of docstrings.
COLUMNS = 120

Shown = TypeVar("Shown", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


@dataclasses.dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        default: what it is if it is not given; `REQUIRED` if it must be.
        meaning: what it does, its shapes and units, in full sentences.
        check: takes its name and what was given, and returns that as it is used. Raises a ValueError that names it.
    """

    default: Any
    meaning: str
    check: Callable[[str, Any], Any]

    @property
    def summary(self) -> str:
        """The first sentence of the meaning, as a command line shows it."""
        sentence = self.meaning.split(". ")[0].rstrip(".").replace("`", "")
        return sentence[0].upper() + sentence[1:] + "."


def option(default: Any, meaning: str, check: Callable[[str, Any], Any]) -> Any:
    """The same as a field of a dataclass; `check_fields` checks it."""
    return dataclasses.field(default=default, metadata={"option": Option(default, meaning, check)})


@cache
def options_of(kind: Hashable) -> Mapping[str, Option]:
    """The options that a TypedDict or a dataclass declares, by name."""
    assert isinstance(kind, type)
    if dataclasses.is_dataclass(kind):
        return {field.name: field.metadata["option"] for field in dataclasses.fields(kind)}
    return {name: get_args(hint)[1] for name, hint in _hints(kind).items()}


def given_options(function: str, kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a kind as they are used: what was given, checked, and the defaults of the others.

    Raises:
        TypeError: as Python does, if there is no such option, or one is missing that has no default.
        ValueError: naming the option that is wrong.
    """
    declared = options_of(kind)
    for name in given:
        if name not in declared:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
    for name, one in declared.items():
        if one.default is REQUIRED and name not in given:
            raise TypeError(f"{function}() missing 1 required keyword-only argument: {name!r}")
    return {name: one.check(name, given.get(name, one.default)) for name, one in declared.items()}


def check_fields(instance: Any) -> None:
    """Check the fields of a dataclass, where they are options.

    Raises:
        ValueError: naming the field that is wrong.
    """
    kind: type = type(instance)
    for name, one in options_of(kind).items():
        one.check(name, getattr(instance, name))


def shows_options(function: Shown) -> Shown:
    """Show the options that a function takes: in its signature, and at {options} in its docstring, if it has one."""
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    (keywords,) = (one.name for one in signature.parameters.values() if one.kind is one.VAR_KEYWORD)
    (kind,) = get_args(hints[keywords])
    own = [
        one.replace(annotation=hints.get(one.name, one.annotation))
        for one in signature.parameters.values()
        if one.kind is not one.VAR_KEYWORD
    ]
    types = {name: get_args(hint)[0] for name, hint in _hints(kind).items()}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=types[name])
        for name, one in options_of(kind).items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *parameters])  # type: ignore[attr-defined]
    return documents_options(kind)(function) if function.__doc__ else function


def documents_options(kind: type) -> Callable[[Shown], Shown]:
    """Write the meanings of a kind of options at {options} in the docstring of a function or a class."""
    meanings = "\n".join(f"{name}: {one.meaning}" for name, one in options_of(kind).items())
    return with_text(options=meanings)


def documents_fields(cls: Class) -> Class:
    """The same of the fields of a dataclass, in its own docstring."""
    return documents_options(cls)(cls)


def with_text(**texts: str) -> Callable[[Shown], Shown]:
    """Put texts that several docstrings share where they say {name}."""

    def filled(function: Shown) -> Shown:
        for name, text in texts.items():
            _replace(function, f"{{{name}}}", text)
        return function

    return filled


def _hints(kind: type) -> dict[str, Any]:
    """The annotations of a TypedDict, without what says whether they are required."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint if hasattr(hint, "__metadata__") else get_args(hint)[0] for name, hint in hints.items()}


def _replace(target: Any, marker: str, text: str) -> None:
    """Replace a line of a docstring by entries, wrapped and indented as it is."""
    if sys.flags.optimize > 1:  # Python was asked to drop docstrings
        return
    (line,) = (line for line in target.__doc__.splitlines() if line.strip() == marker)
    indent = line[: len(line) - len(line.lstrip())]
    target.__doc__ = target.__doc__.replace(line, _wrapped(text, indent))


@cache  # several functions have the same options, and wrapping takes most of the time of an import
def _wrapped(text: str, indent: str) -> str:
    return "\n".join(
        textwrap.fill(entry, COLUMNS, initial_indent=indent, subsequent_indent=indent + " " * 4, break_on_hyphens=False)
        for entry in text.splitlines()
    )
