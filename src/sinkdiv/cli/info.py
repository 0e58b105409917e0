"""`sinkdiv info`: what is installed, and which kernels serve which device."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table

PACKAGES = ("torch", "numpy", "lightning", "torchmetrics", "scikit-learn", "matplotlib")


def info() -> None:
    """Versions, kernels in use, threads.

    Example: [bold]sinkdiv info[/bold]
    """
    import torch

    import sinkdiv
    from sinkdiv import kernels

    table = Table(show_header=False)
    table.add_row("sinkdiv", sinkdiv.__version__)
    table.add_row("python", platform.python_version())
    for package in PACKAGES:
        table.add_row(package, _version(package))
    devices = kernels.describe()
    for device, kernel in devices:
        table.add_row(f"kernel on {device}", kernel)
    if len(devices) == 1:
        table.add_row("GPU", "none that PyTorch finds")
    table.add_row("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    Console().print(table)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
