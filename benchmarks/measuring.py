"""How times and errors are taken: warm-up, prediction, interleaved turns, and a certified float64 reference."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from peers import Answer, Method, Prepared
from workloads import Workload

import sinkdiv

PACKAGES = ("torch", "numpy", "geomloss", "pykeops", "pot", "ott-jax", "jax", "matplotlib")
#: A call shorter than this is timed three times in a turn, after one that is not timed: threads of the previous
#: library have gone to sleep by then, and the caches are its own.
SHORT_S = 0.05
#: Problems of at most this many pairs are warmed up as a whole, larger ones on some of their points.
WARM_UP_PAIRS = 2_000_000
#: A fraction of the points on which the time of a large problem is predicted, by the number of pairs.
PROBE = 4


@dataclass(frozen=True)
class Limits:
    """Seconds: ``call`` is the longest that a call may take, ``method`` what a method may spend on its repetitions."""

    call: float = 400.0
    method: float = 80.0
    repetitions: int = 7


@dataclass
class Runner:
    """A method that takes part, and what was measured of it."""

    method: Method
    prepared: Prepared
    row: dict[str, Any]
    answer: Answer | None = None


def say(text: str) -> None:
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stderr.flush()


def race(methods: list[Method], workload: Workload, limits: Limits, exact: dict[str, Any] | None) -> list[dict]:
    """One row for each method: its seconds, its errors, its notes."""
    runners = [start(method, workload, limits) for method in methods]
    repeat([runner for runner in runners if runner.answer is not None], limits)
    for runner in runners:
        if runner.answer is not None:
            runner.row |= {
                "value": float(runner.answer.value.flatten()[0]),  # of a batch, the first
                "errors": errors(runner.answer, exact),
                "note": joined(runner.row, runner.answer.note),
            }
            if runner.method.details is not None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the details say whether it converged
                    runner.row["details"] = runner.method.details(workload)
    return [runner.row for runner in runners]


def start(method: Method, workload: Workload, limits: Limits) -> Runner:
    """Warm a method up, predict its time and take its first timed call; whatever stops it becomes its note."""
    runner = Runner(method, Prepared(lambda: None, lambda _: None), {"method": method.name, "seconds": []})
    runner.row["note"] = obstacle(method, workload)
    try:
        if not runner.row["note"]:
            warm_up(runner, workload, limits)
        if not runner.row["note"]:
            first_call(runner, workload, limits)
    except TimeoutError:
        runner.row["note"] = f"not finished within {limits.call:.0f} s"
    except Exception as error:  # a peer's failure is a result, whatever its type
        runner.row["note"] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    say(f"  {method.name}: {runner.row['seconds'] or runner.row['note']}")
    return runner


def obstacle(method: Method, workload: Workload) -> str:
    if method.missing:
        return "not installed"
    return "" if method.fits(workload) else "not run: its dense matrices are too large"


def warm_up(runner: Runner, workload: Workload, limits: Limits) -> None:
    """The first use on a small part, which imports and compiles, and the prediction from a larger part."""
    whole = workload.pairs <= WARM_UP_PAIRS
    small = workload if whole else workload.head(min(300, workload.x.shape[-2] // PROBE))
    with warnings.catch_warnings(), deadline(limits.call):
        warnings.simplefilter("ignore")
        runner.row["first_use_s"] = seconds(lambda: runner.method.prepare(small).run())
    if whole:
        return
    probe = workload.head(workload.x.shape[-2] // PROBE)
    scale = workload.pairs / probe.pairs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = runner.method.prepare(probe)
        try:
            with deadline(limits.call / scale):
                predicted = scale * seconds(prepared.run)
        except TimeoutError:
            predicted = limits.call
    if predicted >= limits.call:
        runner.row["note"] = (
            f"not run: a quarter of the points took more than {limits.call / scale:.1f} s, so all would take more than "
            f"{limits.call:.0f} s"
        )


def first_call(runner: Runner, workload: Workload, limits: Limits) -> None:
    """The first timed call, whose answer is judged."""
    begin = time.perf_counter()
    runner.prepared = runner.method.prepare(workload)
    runner.row["prepare_s"] = time.perf_counter() - begin
    with recorded(runner.row), deadline(limits.call):
        begin = time.perf_counter()
        result = runner.prepared.run()
        runner.row["seconds"].append(time.perf_counter() - begin)
    runner.answer = runner.prepared.read(result)


def repeat(runners: list[Runner], limits: Limits) -> None:
    """Turns of all methods, one after the other, until each has its repetitions or has spent its time."""
    for _ in range(limits.repetitions):
        for runner in runners:
            times = runner.row["seconds"]
            if len(times) >= limits.repetitions or sum(times) + times[0] > limits.method:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if times[-1] < SHORT_S:
                    runner.prepared.run()
                    times += [seconds(runner.prepared.run) for _ in range(3)]
                else:
                    times.append(seconds(runner.prepared.run))
    for runner in runners:
        times = runner.row["seconds"]
        if len(times) > 1 and times[0] < SHORT_S:
            del times[0]  # the call that no untimed one preceded


def seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@contextlib.contextmanager
def recorded(row: dict[str, Any]) -> Iterator[None]:
    """Warnings about convergence become notes; the others are dropped."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = {
        str(warning.message).split(":")[0].splitlines()[0][:100]
        for warning in caught
        if "converge" in str(warning.message)
    }
    row["note"] = "; ".join(sorted(texts))


@contextlib.contextmanager
def deadline(limit: float) -> Iterator[None]:
    """Raise TimeoutError after so many seconds, at the next return to Python."""

    def stop(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def joined(row: dict[str, Any], note: str) -> str:
    return "; ".join(text for text in (row["note"], note) if text)


def reference(workload: Workload, cache: Path | None, *, tol: float = 1e-8) -> dict[str, Any]:
    """Value, gradient and certified interval in float64, from the cache if these inputs were solved before."""
    digest = hashlib.sha256(repr((workload.blur, tol)).encode())
    for points in (workload.x, workload.y):
        digest.update(points.numpy().tobytes())
    file = None if cache is None else cache / f"{digest.hexdigest()[:20]}.pt"
    if file is not None and file.exists():
        return torch.load(file)
    say(f"  reference of {workload.title}")
    begin = time.perf_counter()
    x = workload.x.double().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report says so where a reference did not converge
        divergence = sinkdiv.solve_divergence(x, workload.y.double(), blur=workload.blur, tol=tol, max_passes=100_000)
    (gradient,) = torch.autograd.grad(divergence.value.sum(), x)
    lower, upper = divergence.bounds
    exact = {
        "value": divergence.value.detach(), "gradient": gradient, "lower": lower, "upper": upper, "tol": tol,
        "converged": bool(torch.as_tensor(divergence.converged).all()), "seconds": time.perf_counter() - begin,
    }  # fmt: skip
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(exact, file)
    return exact


def described(exact: dict[str, Any]) -> dict[str, Any]:
    """What the results keep of a reference: the interval of its first problem and the widest relative width."""
    lower, upper, value = (torch.atleast_1d(exact[key]) for key in ("lower", "upper", "value"))
    return {
        "value": float(value[0]), "lower": float(lower[0]), "upper": float(upper[0]),
        "relative_width": float(((upper - lower) / upper.abs()).max()), "problems": len(value),
        "tol": exact["tol"], "converged": exact["converged"], "seconds": exact["seconds"],
    }  # fmt: skip


def errors(answer: Answer, exact: dict[str, Any] | None) -> dict[str, float | None]:
    """Relative errors: of the value, the largest of a batch; of the gradient in x, in L2 over everything."""
    if exact is None:
        return {"value": None, "gradient": None}
    value, gradient = answer.value.double(), answer.gradient.double()
    return {
        "value": float((value / exact["value"] - 1).abs().max()),
        "gradient": float((gradient - exact["gradient"]).norm() / exact["gradient"].norm()),
    }


def quartiles(times: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(times) == 1:
        return times[0], times[0], times[0]
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, middle, high


def machine() -> dict[str, Any]:
    """The processor, the threads and the versions that the times belong to."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": model, "cores": os.cpu_count(), "usable_cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
        "versions": {"sinkdiv": sinkdiv.__version__, **{name: installed(name) for name in PACKAGES}},
        "commit": commit(), "load": round(os.getloadavg()[0], 2), "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }  # fmt: skip


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the sources, with a + if they were changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return None
