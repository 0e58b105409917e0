"""The processes that share a run's batches: one leads and starts the others, which end when it does.

They are started as `python -m sinkdiv.generative.processes`, not by running the leader's own command again: training
is shared alike from the command line, from a script and from a notebook.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning.fabric.plugins import ClusterEnvironment
from torch import distributed

from sinkdiv.generative.errors import InputError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

ADDRESS = "127.0.0.1"
POLL_SECONDS = 0.05
# What processes tell each other: how many wait for the leader, and what a user must change.
READY, MISTAKE = "ready", "mistake"
# Set by torchrun and by every launcher that follows it.
LAUNCHED = ("TORCHELASTIC_RUN_ID", "LOCAL_RANK")


@dataclass(frozen=True)
class Group(ClusterEnvironment):
    """Where a process stands among those of its run, as the trainer asks for it."""

    rank: int
    size: int
    port: int
    creates_processes_externally = True
    main_address = ADDRESS

    @staticmethod
    def detect() -> bool:
        return False

    @property
    def main_port(self) -> int:
        return self.port

    def world_size(self) -> int:
        return self.size

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.rank

    def node_rank(self) -> int:
        return 0


def check_machine(accelerator: str, devices: int, precision: str) -> None:
    """Raise `InputError` if this machine, or the way this process was started, cannot serve such a run."""
    if any(name in os.environ for name in LAUNCHED):
        raise InputError(f"--devices {devices}: training starts its processes itself; start it once, not by a launcher")
    gpus = gpu_count()
    if accelerator == "gpu" and gpus == 0:
        raise InputError("--accelerator gpu: PyTorch finds no GPU here")
    if not uses_gpu(accelerator):
        if precision == "float16":
            raise InputError("--precision float16: for GPUs; CPUs have bfloat16")
    elif devices > gpus:
        raise InputError(f"--devices {devices}: GPUs here: {gpus}; on --accelerator cpu processes share the cores")


def gpu_count() -> int:
    """GPUs that PyTorch can use."""
    return torch.cuda.device_count() or int(torch.backends.mps.is_available())


def uses_gpu(accelerator: str) -> bool:
    """Whether a run with this setting trains on GPUs here."""
    return accelerator == "gpu" or (accelerator == "auto" and gpu_count() > 0)


@contextlib.contextmanager
def leading(run: Path, accelerator: str, devices: int) -> Iterator[Group]:
    """Inside the block, `devices` processes train the run whose folder is given, and this one leads them."""
    if devices == 1:
        yield Group(0, 1, 0)
        return
    store = _store(Group(0, devices, 0))
    group = Group(0, devices, store.port)
    with _thread_share(devices):
        helpers = [_start_helper(run, accelerator, Group(rank, devices, store.port)) for rank in range(1, devices)]
        try:
            _wait_until_ready(store, helpers)
            with _connected(store, group, accelerator):
                yield group
        except RuntimeError as error:
            if store.check([MISTAKE]):
                raise InputError(store.get(MISTAKE).decode()) from error
            for rank, helper in enumerate(helpers, start=1):
                if helper.poll():
                    raise RuntimeError(f"process {rank} of {devices} ended with code {helper.returncode}") from error
            raise
        finally:
            for helper in helpers:
                helper.kill()
                helper.communicate()


def _start_helper(run: Path, accelerator: str, group: Group) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", __name__, str(run), accelerator]
    return subprocess.Popen(
        [*command, *map(str, (group.rank, group.size, group.port))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        # Open as long as the leader lives.
        stdin=subprocess.PIPE,
        # Ctrl-C in a terminal is the leader's alone to answer.
        start_new_session=True,
    )


def _store(group: Group) -> "TCPStore":
    """Where the processes of a group meet; at port 0 the system picks one that is free."""
    # Imported here, because builds of PyTorch without torch.distributed lack it; so do the stubs.
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(ADDRESS, group.port, group.size, is_master=group.rank == 0, wait_for_workers=False)


def _wait_until_ready(store: "TCPStore", helpers: "list[subprocess.Popen[bytes]]") -> None:
    while store.add(READY, 0) < len(helpers):
        if any(helper.poll() is not None for helper in helpers):
            raise RuntimeError("not all processes are there")
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _connected(store: "TCPStore", group: Group, accelerator: str) -> Iterator[None]:
    backend = "nccl" if uses_gpu(accelerator) else "gloo"
    distributed.init_process_group(backend, store=store, rank=group.rank, world_size=group.size)
    try:
        yield
    finally:
        # An exception may keep a DDP module, and that the group, whose end then waits for threads of its own while
        # they wait for the interpreter (seen with torch 2.13). Here they come to their end before.
        time.sleep(POLL_SECONDS)
        distributed.destroy_process_group()


@contextlib.contextmanager
def _thread_share(devices: int) -> Iterator[None]:
    """As many threads for each process as this one has, divided by their number."""
    name, threads = "OMP_NUM_THREADS", torch.get_num_threads()
    share, before = max(1, threads // devices), os.environ.get(name)
    # For the processes to start; and for the trainer, which takes all cores where it is not set.
    os.environ[name] = str(share)
    torch.set_num_threads(share)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _help(run: Path, accelerator: str, group: Group) -> None:
    from sinkdiv.generative.opening import load_run_images
    from sinkdiv.generative.runs import RunFolder
    from sinkdiv.generative.training import join

    store = _store(group)
    try:
        config = RunFolder(run).load_config()
        images = load_run_images(config)
        store.add(READY, 1)
        with _connected(store, group, accelerator):
            join(RunFolder(run), config, images, group)
    except InputError as error:
        store.set(MISTAKE, str(error))
        sys.exit(1)


def _end_with_leader() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_leader, daemon=True).start()
    _, folder, kind, *numbers = sys.argv
    _help(Path(folder), kind, Group(*map(int, numbers)))
