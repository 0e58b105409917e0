"""The README and the guides are true: their Python and their commands run, and the picture is what its script draws."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
#: The documents with code that a reader may type.
WITH_PYTHON = ["README.md", "docs/guide.md", "docs/certificates.md"]
WITH_COMMANDS = ["README.md", "docs/training.md", "docs/guide.md"]
#: Options that make a training short: another data set, one epoch.
SHORT = ["--data", "digits", "--max-epochs", "1"]


def blocks(document, language):
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def open_names():
    """The names that the text leaves open: weights, batches, new points, a cost matrix and a learned cost."""
    return {
        "a": torch.full((500,), 1 / 500),
        "b": torch.full((400,), 1 / 400),
        "u": torch.randn(500),
        "v": torch.randn(400),
        "new_points": torch.randn(7, 3),
        "xs": torch.rand(2, 6, 3),
        "ys": torch.rand(2, 5, 3),
        "C": torch.rand(4, 5),
        "critic": torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh()),
    }


@pytest.mark.filterwarnings("error::sinkdiv.ConvergenceWarning", "error::sinkdiv.DerivativeWarning")
@pytest.mark.parametrize("document", WITH_PYTHON)
def test_python_runs(document):
    """All blocks of a document in one namespace, as a reader would type them, without a warning."""
    torch.manual_seed(0)
    names = open_names()
    found = blocks(document, "python")
    assert found
    for block in found:
        exec(block, names)


def test_the_five_lines_give_a_gradient():
    torch.manual_seed(0)
    names = {}
    (first,) = blocks("README.md", "python")
    exec(first, names)
    assert torch.isfinite(names["x"].grad).all()
    assert names["x"].grad.abs().sum() > 0


@pytest.mark.parametrize(("marker", "expected"), [("main command", "sinkdiv train"), ("test command", "pytest")])
def test_marked_commands_are_one_line(marker, expected):
    """The two commands that others take from the README, word for word, by the comment before them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(rf"<!-- {marker} -->\n```bash\n(.*)\n```", text)
    assert "pip install -c constraints.txt" in command
    assert expected in command


def sinkdiv_commands():
    """Every call of `sinkdiv` in the shell blocks, in order, without its comment and without repetition."""
    lines = [
        line.split("  #")[0] for one in WITH_COMMANDS for block in blocks(one, "bash") for line in block.splitlines()
    ]
    parts = [part for line in lines for part in line.split("&&") if part.strip().startswith("sinkdiv ")]
    return [list(command) for command in dict.fromkeys(tuple(shlex.split(part)) for part in parts)]


def test_commands_run_in_the_order_of_the_documents(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.random((30, 2)))
    np.save(tmp_path / "b.npy", rng.random((20, 2)))
    commands = sinkdiv_commands()
    names = [command[1] for command in commands]
    assert names == ["train", "train", "sample", "evaluate", "distance", "distance", "distance", "info"]
    for command in commands:
        short = SHORT if command[1] == "train" else []
        program = [sys.executable, "-c", "from sinkdiv.cli import main; main()", *command[1:], *short]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "samples.png").exists()
    assert np.load(tmp_path / "plan.npz")["plan"].shape == (30, 20)
    assert (tmp_path / "runs/sae/report.html").exists()


@pytest.mark.filterwarnings("ignore::sinkdiv.ConvergenceWarning")
def test_gradient_flow_draws_its_picture(tmp_path, monkeypatch):
    """The script behind the first picture, stopped after the first step of each flow."""
    out = tmp_path / "flow.png"
    script = runpy.run_path(str(ROOT / "experiments/gradient_flow/__main__.py"))
    globals_of_script = script["main"].__globals__
    monkeypatch.setitem(globals_of_script, "STEPS", 1)
    monkeypatch.setitem(globals_of_script, "POINTS", 40)
    monkeypatch.setattr(sys, "argv", ["gradient_flow.py", "--out", str(out)])
    script["main"]()
    assert out.read_bytes().startswith(b"\x89PNG")
