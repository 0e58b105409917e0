"""The processes that share a run's batches: one leads and starts the others, which end when it does.

They are started as `python -m sinkdiv.generative.worker`, not by running the leader's own command again: training is
shared alike from the command line, from a script and from a notebook.
"""

import contextlib
import os
import subprocess
import sys
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

#: What the other processes run.
WORKER = "sinkdiv.generative.worker"
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
def launched(run: Path, accelerator: str, devices: int) -> Iterator[Group]:
    """Inside the block, `devices` processes train the run whose folder is given, and this one leads them."""
    if devices == 1:
        yield Group(0, 1, 0)
        return
    store = open_store(Group(0, devices, 0))
    group = Group(0, devices, store.port)
    with _thread_share(devices):
        workers = [start_worker(run, accelerator, Group(rank, devices, store.port)) for rank in range(1, devices)]
        try:
            _wait_until_ready(store, workers)
            with connected(store, group, accelerator):
                yield group
        except RuntimeError as error:
            if store.check([MISTAKE]):
                raise InputError(store.get(MISTAKE).decode()) from error
            for rank, worker in enumerate(workers, start=1):
                if worker.poll():
                    raise RuntimeError(f"process {rank} of {devices} ended with code {worker.returncode}") from error
            raise
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()


def start_worker(run: Path, accelerator: str, group: Group) -> "subprocess.Popen[bytes]":
    """Start the process of `group.rank` for the run in the folder `run`."""
    command = [sys.executable, "-m", WORKER, str(run), accelerator]
    return subprocess.Popen(
        [*command, *map(str, (group.rank, group.size, group.port))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        # Open as long as the leader lives.
        stdin=subprocess.PIPE,
        # Ctrl-C in a terminal is the leader's alone to answer.
        start_new_session=True,
    )


def open_store(group: Group) -> "TCPStore":
    """Where the processes of a group meet; at port 0 the system picks one that is free."""
    # Imported here, because builds of PyTorch without torch.distributed lack it; so do the stubs.
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(ADDRESS, group.port, group.size, is_master=group.rank == 0, wait_for_workers=False)


def _wait_until_ready(store: "TCPStore", workers: "list[subprocess.Popen[bytes]]") -> None:
    while store.add(READY, 0) < len(workers):
        if any(worker.poll() is not None for worker in workers):
            raise RuntimeError("not all processes are there")
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def connected(store: "TCPStore", group: Group, accelerator: str) -> Iterator[None]:
    """Inside the block, this process belongs to the group."""
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
