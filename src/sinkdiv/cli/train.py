"""`sinkdiv train …`: a command for each model, with an option for each of its settings.

Heavy packages are imported when a command runs.
"""

import inspect
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sinkdiv.cli.runs import scores
from sinkdiv.generative.config import CONFIGS, RunConfig
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.settings import Setting, declarations, group_of, option

train_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

FAILED, INTERRUPTED = 1, 130


class TrainingEndedError(Exception):
    """Training ended early, at the user's wish or by failing; the message is for the user, the code for the shell."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@train_app.callback()
def train() -> None:
    """Train a generative model.

    Example: [bold]sinkdiv train autoencoder --out runs/sae[/bold]
    """


def _add_command(kind: type[RunConfig]) -> None:
    """The command that trains the model whose settings are `kind`; its options are read from them."""

    def command(context: typer.Context, **options: Any) -> None:
        _train(kind, _chosen(kind, context), options["out"], options["resume"])

    out = _parameter("out", Path, typer.Option(help="Folder of the run."), inspect.Parameter.empty)
    resume = _parameter("resume", bool, typer.Option("--resume", help="Go on with the run in the folder."), False)
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    command.__signature__ = inspect.Signature([context, out, *_options(kind), resume])  # type: ignore[attr-defined]
    train_app.command(kind.model, help=inspect.cleandoc(kind.about))(command)


def _options(kind: type[RunConfig]) -> Iterator[inspect.Parameter]:
    """The model's own settings first, then those of the groups that it is composed of; each with its other words."""
    groups, types = [kind, *kind.__bases__], typing.get_type_hints(kind)
    declared = {name: found for name, found in declarations(kind).items() if found.help}
    for name in sorted(declared, key=lambda name: groups.index(group_of(kind, name))):
        panel = group_of(kind, name).panel
        yield _setting_parameter(name, types[name], declared[name], panel)
        for alias, meaning in kind.aliases.items():
            if meaning.setting == name:
                yield _parameter(alias, float | None, typer.Option(help=meaning.help, rich_help_panel=panel))


def _setting_parameter(name: str, of_type: Any, declared: Setting, panel: str) -> inspect.Parameter:
    """A setting as a parameter of the command, which has no default where the setting's is derived."""
    shown: dict[str, Any] = {"help": declared.help, "rich_help_panel": panel}
    if declared.shown:
        typed = str if of_type == tuple[int, ...] else of_type
        return _parameter(name, typed | None, typer.Option(show_default=declared.shown, **shown))
    flags = [option(name)] if of_type is bool else []
    return _parameter(name, of_type, typer.Option(*flags, **shown), declared.default)


def _parameter(name: str, of_type: Any, described: Any, default: Any = None) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[of_type, described])


def _chosen(kind: type[RunConfig], context: typer.Context) -> dict[str, Any]:
    """The settings that the user gave among a command's options; the others are the model's to fill."""
    typed = {name: value for name, value in context.params.items() if _was_typed(context, name)}
    types = typing.get_type_hints(kind)
    chosen = {name: value for name, value in typed.items() if name in types}
    for name, value in chosen.items():
        if types[name] == tuple[int, ...]:
            chosen[name] = _widths(name, value)
    for name, alias in kind.aliases.items():
        if name in typed:
            if alias.setting in chosen:
                raise InputError(f"{option(alias.setting)} and {option(name)}: give one of them")
            chosen[alias.setting] = alias.convert(typed[name], chosen)
    return chosen


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _widths(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError as error:
        raise InputError(f"{option(name)} {text}: expected widths like 512,512") from error


def _train(kind: type[RunConfig], chosen: dict[str, Any], out: Path, resume: bool) -> None:
    """Start or continue a run of the model whose settings are `kind`, and say how it went."""
    started = time.perf_counter()

    from sinkdiv.generative import training
    from sinkdiv.generative.failures import TrainingFailure
    from sinkdiv.generative.runs import RunFolder, resumed_config

    run = RunFolder(out)
    console = Console()
    if resume:
        config = resumed_config(run, kind, chosen)
        if run.is_finished(config):
            message = f"{out} is finished, its report is {run.report}; give a larger --max-epochs to go on"
            console.print(message, soft_wrap=True, markup=False)
            return
        prepared = training.resume(run, config)
    else:
        prepared = training.start(run, kind, chosen)
    images, (title, summary) = prepared.images, prepared.config.described
    console.print(
        f"{title}: {len(images.train)} images, {len(images.held_out)} held out; {summary}", soft_wrap=True, markup=False
    )
    how_to_go_on = f"go on: sinkdiv train {kind.model} --out {out} --resume"
    try:
        metrics = training.train(prepared, console)
    except KeyboardInterrupt as error:
        raise TrainingEndedError(f"interrupted; {how_to_go_on}", INTERRUPTED) from error
    except TrainingFailure as failure:
        raise TrainingEndedError(f"training failed: {failure}", FAILED) from failure
    console.print(scores(metrics))
    console.print(
        f"{time.perf_counter() - started:.0f} s in all; the report is {run.report}", soft_wrap=True, markup=False
    )
    if metrics["interrupted"]:
        raise TrainingEndedError(f"interrupted in epoch {metrics['epochs'] + 1}; {how_to_go_on}", INTERRUPTED)
    if metrics["failed"]:
        raise TrainingEndedError(f"training failed: {metrics['failed']}", FAILED)


for _kind in CONFIGS.values():
    _add_command(_kind)
