"""Several processes that share each batch learn what one process learns from all of it, and begin and end together."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from generative_models import settled
from sinkdiv.cli.app import run
from sinkdiv.generative import callbacks, launcher, worker
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.data import load_images, training_loader
from sinkdiv.generative.distributed import process_rank
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.models.autoencoder import Autoencoder
from sinkdiv.generative.runs import RunFolder, load_checkpoint
from sinkdiv.generative.seeds import Stream, generator

# Its first import sets variables of the environment, which a test below compares before and after.
pytest.importorskip("sklearn")

COUNT = 16
METHODS: dict[str, dict[str, Any]] = {
    "entropic": {},
    "product": {"prior": "sphere@3*normal@2"},
    "sharp": {"value": "sharp"},
    "unrolled": {"value": "sharp", "debias": "none", "derivative": "unrolled", "iterations": 5},
    "halves": {"debias": "independent"},
    "rounded": {"value": "sharp", "rounding": True},
    "ae": {"method": "ae"},
    "wae": {"method": "wae"},
    "swae": {"method": "swae"},
    "w2gae": {"method": "w2gae"},
    "hae": {"method": "hae"},
    "energy": {"method": "energy"},
}


class Step(torch.nn.Module):
    """The loss of a training step, as a module's forward pass."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        given = {"network": "mlp", "hidden": (12,), "latent_dim": 5, "batch_size": COUNT} | settings
        self.model = Autoencoder(settled(AutoencoderConfig, (1, 4, 4), **given)).double()

    def forward(self, images: Tensor) -> Tensor:
        codes, latent = self.model.method.codes_and_loss(self.model.encoder(images), source)
        return self.model.reconstruction_loss(codes, images) + self.model.config.beta * latent


def source(stream: Stream) -> torch.Generator:
    return generator(3, stream, *[process_rank()] * (stream is Stream.POSTERIOR))


def batch() -> Tensor:
    return torch.rand(COUNT, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def gradients(module: torch.nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def shared_step(part: Tensor, settings: dict[str, Any]) -> list[Tensor]:
    module = DistributedDataParallel(Step(**settings))
    loss = module(part)
    loss.backward()
    distributed.all_reduce(loss.detach())
    return [loss.detach() / 2, *gradients(module)]


def share(rank: int, meeting: Path) -> dict[str, Any]:
    """What one of two processes comes to: of each method the loss and the gradients, and a VAE's codes."""
    distributed.init_process_group("gloo", f"file://{meeting}", timedelta(minutes=1), world_size=2, rank=rank)
    try:
        part = batch().chunk(2)[rank]
        found: dict[str, Any] = {name: shared_step(part, settings) for name, settings in METHODS.items()}
        same_images = batch()[:1].expand(4, -1)
        vae = Step(method="vae", prior="normal").model
        found["codes"], found["divergence"] = vae.method.codes_and_loss(vae.encoder(same_images), source)
        return {name: value.detach() if isinstance(value, Tensor) else value for name, value in found.items()}
    finally:
        distributed.destroy_process_group()


def share_and_save(rank: int, meeting: Path, results: Path) -> None:
    torch.save(share(rank, meeting), results)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("shared")
    meeting, results = folder / "meeting", folder / "results.pt"
    other = multiprocessing.get_context("spawn").Process(target=share_and_save, args=(1, meeting, results))
    other.start()
    ours = share(0, meeting)
    other.join()
    return [ours, torch.load(results, weights_only=True)]


@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradients_are_those_of_one_process_with_the_whole_batch(
    shared: list[dict[str, Any]], name: str
) -> None:
    """The latent loss is not a mean over images, but each process computes all of it; float64, to rounding."""
    module = Step(**METHODS[name])
    loss = module(batch())
    loss.backward()
    expected = [loss.detach(), *gradients(module)]
    assert max(float(gradient.abs().max()) for gradient in expected[1:]) > 1e-3
    for found in shared:
        for ours, theirs in zip(found[name], expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_posterior_noise_differs_between_processes(shared: list[dict[str, Any]]) -> None:
    """The same image in all rows of all processes: eight different codes, one divergence."""
    codes = torch.cat([found["codes"] for found in shared])
    assert len(codes.unique(dim=0)) == len(codes) == 8
    assert torch.equal(shared[0]["divergence"], shared[1]["divergence"])


@pytest.mark.parametrize("world", [2, 3])
def test_processes_take_disjoint_parts_of_each_batch_in_order(world: int) -> None:
    images = load_images("digits")
    parts = [list(training_loader(images, 120, 0, rank, world)) for rank in range(world)]
    for number, whole in enumerate(training_loader(images, 120, 0)):
        assert torch.equal(torch.cat([part[number] for part in parts]), whole)


TRAIN = ["train", "autoencoder", "--data", "digits", "--hidden", "32", "--batch-size", "400", "--accelerator", "cpu"]


def weights_and_history(out: Path) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    checkpoint = load_checkpoint(RunFolder(out).last)
    return checkpoint["state_dict"], checkpoint["callbacks"]["History"]["rows"]


def interrupt_in(epoch: int) -> Callable[..., None]:
    def on_train_epoch_start(self: Any, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch + 1 == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    return on_train_epoch_start


def test_two_processes_train_as_one_and_stop_together_and_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the third of four epochs, the rest on one device: losses and weights to the rounding of sums."""
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    workers, start = [], launcher.start_worker
    monkeypatch.setattr(launcher, "start_worker", lambda *which: workers.append(start(*which)) or workers[-1])
    threads, environment = torch.get_num_threads(), dict(os.environ)
    with monkeypatch.context() as patched:
        patched.setattr(callbacks.TrainingBar, "on_train_epoch_start", interrupt_in(3))
        assert run([*TRAIN, "--max-epochs", "4", "--devices", "2", "--out", str(shared)]) == 130
    output, errors = capfd.readouterr()
    assert errors == f"sinkdiv: interrupted in epoch 3; go on: sinkdiv train autoencoder --out {shared} --resume\n"
    assert output.count("on digits: 1617 images") == 1
    assert [one.poll() is not None for one in workers] == [True]
    assert not distributed.is_initialized()
    assert (threads, environment) == (torch.get_num_threads(), dict(os.environ))
    folder = RunFolder(shared)
    assert load_checkpoint(folder.interrupted)["global_step"] == folder.load_metrics()["steps"] == 9
    assert [path.name for path in (shared / "logs").iterdir()] == ["version_0"]

    assert run([*TRAIN, "--devices", "1", "--resume", "--out", str(shared)]) == 0
    assert run([*TRAIN, "--max-epochs", "4", "--out", str(alone)]) == 0
    (ours, our_rows), (theirs, their_rows) = weights_and_history(shared), weights_and_history(alone)
    # Sums over 400 images in another order; Adam divides by gradients' sizes, so that small ones show their rounding.
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, rtol=0, atol=1e-5)
    for our_row, their_row in zip(our_rows, their_rows, strict=True):
        assert our_row == pytest.approx(their_row, rel=1e-5)


def test_a_mistake_of_any_process_is_the_leaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start_one_without_a_run(*which: Any) -> "subprocess.Popen[bytes]":
        with pytest.raises(SystemExit):
            worker.work(*which)
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"], stdin=subprocess.PIPE)

    def lead() -> None:
        with launcher.launched(tmp_path, "cpu", 2):
            pytest.fail("the other process has no run to share")

    monkeypatch.setattr(launcher, "start_worker", start_one_without_a_run)
    with pytest.raises(InputError, match="no run here"):
        lead()
    assert not distributed.is_initialized()


def test_a_process_ends_with_its_leader() -> None:
    """The leader holds the other end of its standard input, which the system closes however the leader ends."""
    arguments = [sys.executable, "-m", "sinkdiv.generative.worker", "absent", "cpu", "1", "2", "0"]
    ended = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--devices", "0"], "--devices 0: expected at least 1"),
        (["--devices", "3"], "--batch-size 400: expected a multiple of 3"),
        (["--devices", "2", "--accelerator", "gpu"], "--devices 2: GPUs here: 1"),
        (["--precision", "float16"], "--precision float16: for GPUs; CPUs have bfloat16"),
    ],
)
def test_what_the_machine_cannot_do_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    expected: str,
) -> None:
    monkeypatch.setattr(launcher, "gpu_count", lambda: 1)
    assert run([*TRAIN, *options, "--out", str(tmp_path / "run")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"sinkdiv: {expected}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["TORCHELASTIC_RUN_ID", "LOCAL_RANK"])
def test_a_launcher_and_an_absent_gpu_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(launcher, "gpu_count", lambda: 0)
    with pytest.raises(InputError, match="--accelerator gpu: PyTorch finds no GPU"):
        launcher.check_machine("gpu", 1, "float32")
    monkeypatch.setenv(name, "0")
    with pytest.raises(InputError, match="starts its processes itself"):
        launcher.check_machine("cpu", 2, "float32")
