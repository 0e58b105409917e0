"""The commands of `sinkdiv`, one file a command. Heavy packages are imported by the commands that need them."""

import sys
from collections.abc import Sequence

import typer

from sinkdiv.cli.distance import distance
from sinkdiv.cli.evaluate import evaluate
from sinkdiv.cli.info import info
from sinkdiv.cli.sample import sample
from sinkdiv.cli.train import INTERRUPTED, TrainingEndedError, train_app
from sinkdiv.generative.errors import InputError

app = typer.Typer(
    help="Sinkhorn divergences, and the generative models trained with them.\n\n"
    "Example: [bold]sinkdiv distance a.npy b.npy --blur 0.05[/bold]",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(train_app, name="train")
for command in (sample, evaluate, distance, info):
    app.command()(command)

MISTAKE = 2


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; a user's mistake becomes one line on stderr and code 2."""
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="sinkdiv")
    except InputError as error:
        return _fail(str(error), MISTAKE)
    except TrainingEndedError as error:
        return _fail(str(error), error.code)
    except Exception as error:
        # Usage errors have no public base class in every supported typer; this method is what they share.
        if not hasattr(error, "format_message"):
            raise
        return _fail(error.format_message(), MISTAKE)
    # typer answers Ctrl-C outside training with this code and no word.
    return _fail("interrupted", INTERRUPTED) if code == INTERRUPTED else int(code or 0)


def _fail(message: str, code: int) -> int:
    # The message is empty when a command without arguments has just printed its help.
    if message:
        sys.stderr.write(f"sinkdiv: {' '.join(message.split())}\n")
    return code
