"""The `sinkdiv` command. Its commands are in `commands`, which needs the `train` extra."""

import sys

_EXTRA = {"typer", "rich", "yaml", "PIL", "scipy", "sklearn", "mlxtend", "matplotlib", "tensorboard", "lightning"}
_EXTRA |= {"torchmetrics", "pooch"}


def main() -> None:
    """Run the command line and exit.

    With 0 when all is done, 1 after a training that failed or a defect, 2 for a user's mistake, 130 when interrupted.
    """
    try:
        from sinkdiv.cli.app import run

        code = run(sys.argv[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(f'sinkdiv: {error.name} is missing: pip install "sinkdiv[train]"\n')
        code = 2
    except KeyboardInterrupt:
        sys.stderr.write("sinkdiv: interrupted\n")
        code = 130
    sys.exit(code)
