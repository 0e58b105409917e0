"""The command line, end to end."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sinkdiv
from sinkdiv.cli.app import run
from sinkdiv.declarations import options_of
from sinkdiv.kernels import triton
from sinkdiv.options import LossOptions

TRAIN = ["train", "autoencoder", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "normal"
    options = ["--data", "digits", "--prior", "normal", "--hidden", "32,16", "--latent-dim", "4", "--max-epochs", "2"]
    assert run([*TRAIN, *options, "--out", str(out)]) == 0
    return out


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail with code 2 and exactly one line on stderr; returns the line."""
    assert run([str(argument) for argument in arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("sinkdiv: ")
    assert errors.count("\n") == 1
    assert errors.endswith("\n")
    return errors


def test_train_sample_evaluate_resume(digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sample", str(digits_run), "-n", "5", "--out", str(tmp_path / "a.png")]) == 0
    assert run(["sample", str(digits_run), "-n", "5", "--seed", "1", "--out", str(tmp_path / "b.png")]) == 0
    with Image.open(tmp_path / "a.png") as one, Image.open(tmp_path / "b.png") as other:
        assert one.size == other.size
        assert one.tobytes() != other.tobytes()
    capsys.readouterr()
    assert run(["evaluate", str(digits_run)]) == 0
    shown = capsys.readouterr().out
    assert "Wasserstein-2" in shown
    assert "There is no FID" in shown
    assert run([*TRAIN, "--out", str(digits_run), "--resume"]) == 0
    assert "is finished" in capsys.readouterr().out


def test_help_of_every_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["train", "autoencoder"], ["train", "generator"], ["sample"], ["evaluate"], ["distance"], ["info"]):
        assert run([*command, "--help"]) == 0
        assert f"Example: sinkdiv {' '.join(command)}" in capsys.readouterr().out
    assert run(["--help"]) == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--nonsense"], "--nonsense"),
        (["--beta", "much"], "--beta"),
        (["--beta", "-1"], "--beta"),
        (["--eps", "1", "--blur", "1"], "--eps and --blur"),
        (["--blur", "-1"], "--blur"),
        (["--hidden", "wide"], "--hidden"),
        (["--prior", "cube"], "--prior"),
        (["--accelerator", "abacus"], "--accelerator"),
        (["--data", "absent"], "--data absent"),
        (["--batch-size", "5000"], "--batch-size"),
        (["--resume"], "no run here"),
    ],
)
def test_wrong_training_options_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    data = [] if "--data" in options or "--resume" in options else ["--data", "digits"]
    assert expected in failure(capsys, *TRAIN, *data, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_wrong_runs_and_files_are_one_line(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for command in ("sample", "evaluate"):
        assert "no such folder" in failure(capsys, command, tmp_path / "absent")
        assert "no run here" in failure(capsys, command, tmp_path)
    assert "cannot be written" in failure(capsys, "sample", digits_run, "--out", tmp_path / "file" / "a.png")
    assert "not a folder" in failure(capsys, *TRAIN, "--data", "digits", "--out", tmp_path / "file")
    assert "holds a run" in failure(capsys, *TRAIN, "--data", "digits", "--out", digits_run)
    assert "--beta 3.0" in failure(capsys, *TRAIN, "--out", digits_run, "--resume", "--beta", "3")
    assert "No such command" in failure(capsys, "fly")


@pytest.mark.parametrize("kind", ["npy", "npz", "csv"])
def test_distance_of_a_shifted_cloud_is_the_squared_shift(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """S_ε(α, α+τ) = |τ|² for the squared cost, at every ε; the plan has the weights as marginals."""
    x = np.random.default_rng(0).random((20, 2))
    y = x + np.array([0.3, 0.4])
    paths = [tmp_path / f"{name}.{kind}" for name in "xy"]
    for path, points in zip(paths, (x, y), strict=True):
        if kind == "npz":
            np.savez(path, points)
        elif kind == "csv":
            np.savetxt(path, points, delimiter=",")
        else:
            np.save(path, points)
    plan = tmp_path / "plan.npz"
    assert run(["distance", *map(str, paths), "--blur", "0.2", "--tol", "1e-6", "--plan", str(plan), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["converged"]
    assert result["lower"] <= 0.25 <= result["upper"]
    assert result["value"] == pytest.approx(0.25, abs=1e-6)
    np.testing.assert_allclose(np.load(plan)["plan"].sum(0), np.full(20, 0.05), atol=1e-6)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
def test_distance_takes_weights_and_prints_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cost: str
) -> None:
    x, y = torch.rand(10, 3, dtype=torch.float64), torch.rand(8, 3, dtype=torch.float64)
    a = torch.full((10,), 0.1, dtype=torch.float64)
    b = torch.arange(1, 9, dtype=torch.float64) / 36
    for name, array in {"x": x, "y": y, "a": a, "b": b}.items():
        np.save(tmp_path / f"{name}.npy", array.numpy())
    files = [str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), "--weights-a", str(tmp_path / "a.npy")]
    files += ["--weights-b", str(tmp_path / "b.npy"), "--eps", "0.1", "--cost", cost]
    assert run(["distance", *files]) == 0
    value = float(sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.1, cost=cost))
    assert f"{value:.6g}" in capsys.readouterr().out


def test_distance_takes_the_options_of_the_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The value is the library's with the same options; a sharp value has no interval."""
    x, y = torch.rand(10, 3, dtype=torch.float64), torch.rand(8, 3, dtype=torch.float64)
    for name, array in {"x": x, "y": y}.items():
        np.save(tmp_path / f"{name}.npy", array.numpy())
    files = [str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    options = ["--eps", "0.1", "--rho", "0.5", "--rho", "2", "--value", "sharp", "--solver", "newton"]
    assert run(["distance", *files, *options, "--tol", "1e-6", "--max-passes", "500", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    solver = sinkdiv.Newton(max_passes=500)
    expected = sinkdiv.sinkhorn_divergence(x, y, eps=0.1, rho=(0.5, 2.0), value="sharp", tol=1e-6, solver=solver)
    assert result["value"] == pytest.approx(float(expected), rel=1e-12)
    assert result["lower"] is None
    assert result["upper"] is None


def test_distance_helps_with_the_words_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["distance", "--help"]) == 0
    shown = "".join(capsys.readouterr().out.replace("│", "").split())
    for kind, name in [(LossOptions, "blur"), (LossOptions, "rho"), (sinkdiv.Auto, "max_passes")]:
        assert "".join(options_of(kind)[name].summary.split()) in shown


def test_distance_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, other, bad = tmp_path / "good.npy", tmp_path / "other.npy", tmp_path / "bad.npy"
    np.save(good, np.zeros((3, 2)))
    np.save(other, np.zeros((3, 4)))
    np.save(bad, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    nan = tmp_path / "nan.npy"
    np.save(nan, np.full((3, 2), np.nan))
    assert "no such file" in failure(capsys, "distance", good, tmp_path / "absent.npy", "--blur", "1")
    assert "bad.npy" in failure(capsys, "distance", good, bad, "--blur", "1")
    for wrong in (
        [good, other, "--blur", "1"],
        [good, nan, "--blur", "1"],
        [good, good],
        [good, good, "--blur", "-1"],
        [good, good, "--blur", "1", "--cost", "taxi"],
        [good, good, "--blur", "1", "--solver", "simplex"],
        [good, good, "--blur", "1", "--value", "blunt"],
        [good, good, "--blur", "1", "--max-passes", "1"],
        [good, good, "--eps", "1", "--rho", "1", "--rho", "2", "--rho", "3"],
        [good, good, "--blur", "1", "--plan", tmp_path / "plan.txt"],
    ):
        failure(capsys, "distance", *wrong)


def test_info_names_version_and_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info"]) == 0
    out = capsys.readouterr().out
    assert sinkdiv.__version__ in out
    assert "kernel on cpu" in out


@pytest.fixture
def described(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """What `sinkdiv info` prints on a machine with the GPU that is described."""

    def describe(capability: tuple[int, int] | None, **here: bool) -> str:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int(capability is not None))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "A GPU")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        for kind in ("mps", "xpu"):
            monkeypatch.setattr(getattr(torch, kind), "is_available", lambda kind=kind: here.get(kind, False))
        monkeypatch.setattr(triton, "available", here.get("triton", False))
        monkeypatch.setattr(triton, "version", lambda: "3.6.0")
        triton.missing.cache_clear()
        assert run(["info"]) == 0
        return capsys.readouterr().out

    yield describe
    triton.missing.cache_clear()


def test_info_says_which_kernels_serve_which_device(described: Callable[..., str]) -> None:
    assert "none that PyTorch finds" in described(None, triton=True)
    lines = described((9, 0), triton=True).splitlines()
    assert any("cuda:0 (A GPU)" in line and "fused (Triton 3.6.0)" in line for line in lines)
    assert not any("none that PyTorch finds" in line for line in lines)
    for capability, here, reason in (((9, 0), False, "Triton is not installed"), ((7, 5), True, "compute capability")):
        (line,) = (line for line in described(capability, triton=here).splitlines() if "cuda:0" in line)
        assert "reference (PyTorch, tiled)" in line
        assert reason in line
    for kind in ("mps", "xpu"):
        (line,) = (line for line in described(None, **{kind: True}).splitlines() if f"kernel on {kind}" in line)
        assert "reference (PyTorch, tiled)" in line


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_light_commands_do_not_import_the_training_packages() -> None:
    code = (
        "import sys, sinkdiv;"
        "assert not {'typer', 'rich', 'yaml', 'PIL'} & set(sys.modules);"
        "import sinkdiv.cli.app as commands; commands.run(['--help']); commands.run(['info']);"
        "heavy = {'lightning', 'matplotlib', 'sklearn', 'mlxtend', 'torchmetrics'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    assert python(code).stderr == ""


def test_without_the_extra_one_line_says_what_to_install() -> None:
    """First nothing of it is there, then everything but lightning."""
    code = """
import sys
from collections.abc import Callable, Iterator
from sinkdiv.cli import main
for package, arguments in (("typer", ["info"]), ("lightning", ["train", "autoencoder", "--out", "unused"])):
    sys.argv, sys.modules[package] = ["sinkdiv", *arguments], None
    try:
        main()
    except SystemExit as ending:
        assert ending.code == 2
    del sys.modules[package]
"""
    done = python(code)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all('pip install "sinkdiv[train]"' in line for line in lines)
