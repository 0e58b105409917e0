"""The README is true: its Python runs, its commands run, and its pictures are what the scripts draw."""

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
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
#: Options that make the README's training short: another data set, one epoch.
SHORT = ["--data", "digits", "--max-epochs", "1"]


def test_python_examples_run(tmp_path):
    """In one namespace, as a reader would type them; the names the text leaves open are given here."""
    torch.manual_seed(0)
    open_names = {
        "new_points": torch.randn(7, 3),
        "v": torch.randn(400),
        "C": torch.rand(4, 5),
        "a": torch.full((4,), 1 / 4),
        "b": torch.full((5,), 1 / 5),
        "xs": torch.rand(2, 6, 3),
        "ys": torch.rand(2, 5, 3),
        "critic": torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh()),
    }
    first, second = PYTHON
    exec(first, open_names)
    assert torch.isfinite(open_names["x"].grad).all()
    assert open_names["x"].grad.abs().sum() > 0
    # A blur of 0.1 suits the reader's data, not clouds of this size.
    exec(second.replace("blur=0.1", "blur=0.5").replace("eps=0.01", "eps=0.1"), open_names)
    assert open_names["t"].converged


def sinkdiv_commands():
    """Every call of `sinkdiv` in the README's shell blocks, in order, without its comment."""
    lines = [line.split("  #")[0] for block in SHELL for line in block.splitlines()]
    return [shlex.split(part) for line in lines for part in line.split("&&") if part.strip().startswith("sinkdiv ")]


def test_commands_run_in_the_order_of_the_readme(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.random((30, 2)))
    np.save(tmp_path / "b.npy", rng.random((20, 2)))
    commands = sinkdiv_commands()
    assert [command[1] for command in commands] == ["train", "train", "distance", "sample", "evaluate", "info"]
    for command in commands:
        short = SHORT if command[1] == "train" else []
        program = [sys.executable, "-c", "from sinkdiv.cli import main; main()", *command[1:], *short]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "samples.png").exists()
    assert (tmp_path / "runs/sae/report.html").exists()


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"`((?:docs|experiments|benchmarks)/[^`]+)`", README)
    assert len(links) >= 5
    for link in links:
        assert (ROOT / link).exists(), link


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
