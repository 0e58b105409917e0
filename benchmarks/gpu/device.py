"""The device that is measured: how its time is taken, what it is, and what it could do at best."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.frame.machine import commit, now, versions
from sinkdiv import kernels

Call = Callable[[], object]

#: A call is repeated so often, and until so many seconds are spent.
LEAST, MOST, ENOUGH_S = 5, 50, 0.3
#: Calls shorter than this are also timed in a row, where launching them is part of the time.
SHORT_S = 2e-3
#: Between two timed calls so many bytes are written, which leaves nothing of the inputs in the cache.
FLUSHED_BYTES = 2**28
PACKAGES = ("torch", "triton", "numpy", "geomloss", "pykeops", "flash-sinkhorn")


class Device:
    """A GPU, timed by its own events; or a CPU, by the clock, which shows that a benchmark works."""

    def __init__(self, name: str) -> None:
        self.torch = torch.device(name)
        self.is_gpu = self.torch.type == "cuda"
        self._flushed = torch.empty(FLUSHED_BYTES, dtype=torch.int8, device=name) if self.is_gpu else None

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.torch)

    def seconds(self, call: Call) -> float:
        """Wall time of a call, launched on an idle device, to its end."""
        self.wait()
        begin = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - begin

    def timed(self, call: Call, *, most: int = MOST, enough: float = ENOUGH_S) -> dict[str, Any]:
        """After one call to warm up: the median time of single calls, by events, each with an empty cache.

        Short ones besides, ``in_a_row``: of many calls launched one after the other, by the clock.
        """
        warm = self.seconds(call)
        most = most if self.is_gpu else 1
        times: list[float] = []
        while len(times) < min(most, LEAST) or (len(times) < most and sum(times) < enough):
            times.append(self._event_seconds(call))
            if sum(times) > 10 * enough and len(times) > 1:
                break
        found = {"seconds": statistics.median(times), "repetitions": len(times), "first_s": warm}
        if self.is_gpu and found["seconds"] < SHORT_S:
            found["in_a_row"] = self.seconds(lambda: [call() for _ in range(most)]) / most
        return found

    def _event_seconds(self, call: Call) -> float:
        if self._flushed is None:
            return self.seconds(call)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flushed.zero_()
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def peak_bytes(self, call: Call) -> int | None:
        """What a call allocates at most beyond what is there before it; unknown on a CPU."""
        if not self.is_gpu:
            return None
        self.wait()
        before = torch.cuda.memory_allocated(self.torch)
        torch.cuda.reset_peak_memory_stats(self.torch)
        call()
        self.wait()
        return torch.cuda.max_memory_allocated(self.torch) - before

    def waits(self, call: Call) -> tuple[int, list[str]]:
        """How often a call makes the host wait for the device, and for what; on a CPU, how often numbers are read."""
        return _cuda_waits(call) if self.is_gpu else _reads(call)

    def facts(self) -> dict[str, Any]:
        """What the times belong to."""
        found: dict[str, Any] = {
            "device": platform.processor() or platform.machine(), "python": platform.python_version(),
            "versions": versions(PACKAGES),
            "cuda": torch.version.cuda, "commit": os.environ.get("SINKDIV_COMMIT") or commit(), "driver": None,
            "kernels": [f"{device}: {which}" for device, which in kernels.describe()],
            "date": now(),
        }  # fmt: skip
        if self.is_gpu:
            found |= {"device": torch.cuda.get_device_name(self.torch), "driver": _asked("driver_version")}
            found["rates"] = Rates.of(self).described()
        return found


@dataclass(frozen=True)
class Rates:
    """What all multiprocessors together can do in a second at their highest clock."""

    multiprocessors: int
    clock: float
    exponentials: float
    float32: float
    half_products: float | None
    tf32_products: float | None

    #: Of one multiprocessor and clock, by compute capability: additions or fused multiply-adds in float32, and flops
    #: of dense matrix products from float16 and from TF32 (NVIDIA's white papers on A100, H100 and its data sheets).
    LANES: ClassVar = {(8, 0): 64, (8, 6): 128, (8, 9): 128, (9, 0): 128, (10, 0): 128}
    PRODUCTS: ClassVar = {(8, 0): (2048, 1024), (9, 0): (4096, 2048)}
    #: Exponentials of its special function units.
    EXPONENTIALS: ClassVar = 16

    @classmethod
    def of(cls, device: Device) -> Rates:
        properties = torch.cuda.get_device_properties(device.torch)
        capability = (properties.major, properties.minor)
        clock = 1e6 * float(_asked("clocks.max.sm") or 0) or 1e3 * getattr(properties, "clock_rate", 0)
        each = properties.multi_processor_count * clock
        half, tf32 = (None if rate is None else rate * each for rate in cls.PRODUCTS.get(capability, (None, None)))
        return cls(
            properties.multi_processor_count, clock, cls.EXPONENTIALS * each, cls.LANES.get(capability, 128) * each,
            half, tf32,
        )  # fmt: skip

    def described(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Charge:
    """What a pair is charged: exponentials, float32 operations, and flops of matrix products by their operands."""

    exponentials: float
    float32: float
    half_products: float = 0.0
    tf32_products: float = 0.0

    def floor(self, pairs: int, rates: Rates) -> float:
        """Seconds in which no kernel passes over so many pairs: those of the unit that has most to do."""
        products = ((self.half_products, rates.half_products), (self.tf32_products, rates.tf32_products))
        times = [
            _over(self.exponentials, rates.exponentials), _over(self.float32, rates.float32),
            sum(_over(load, rate) for load, rate in products),  # one unit does both
        ]  # fmt: skip
        return pairs * max(times)


def _over(load: float, rate: float | None) -> float:
    """Seconds, none where the rate is not known."""
    return load / rate if rate else 0.0


def _asked(field: str) -> str | None:
    """One number or name from nvidia-smi, of the first GPU."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "--id=0"]
    with suppress(OSError, subprocess.SubprocessError):
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
        return text if text and not text.startswith("[") else None
    return None


def _cuda_waits(call: Call) -> tuple[int, list[str]]:
    with warnings.catch_warnings(record=True) as caught, _warned_of_waits():
        warnings.simplefilter("always")
        call()
    places = [f"{os.path.basename(one.filename)}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)]
    return len(places), sorted(set(places))


@contextmanager
def _warned_of_waits() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class _Reads(TorchDispatchMode):
    """Counts the operations that hand a number to Python."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Tensor:
        if function.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def _reads(call: Call) -> tuple[int, list[str]]:
    with _Reads() as reads:
        call()
    return len(reads.names), sorted(set(reads.names))
