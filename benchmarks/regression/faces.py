"""How a solve is asked for: the only place here that knows the public face of the tree that is measured.

Trees from before and after the options of a solver became one object are told apart by that object.
"""

from __future__ import annotations

from typing import Any

import sinkdiv

SOLVERS = {"auto": "Auto", "sinkhorn": "Sinkhorn", "newton": "Newton", "lbfgs": "LBFGS"}


def how(method: str = "auto", **options: Any) -> dict[str, Any]:
    """The keywords that ask for a method with options such as ``max_passes``."""
    if hasattr(sinkdiv, "Auto"):
        return {"solver": getattr(sinkdiv, SOLVERS[method])(**options)}
    return options if method == "auto" else {"method": method, **options}


def unrolled(iterations: int) -> dict[str, Any]:
    """The keywords that ask for so many iterations, differentiated as a program."""
    if hasattr(sinkdiv, "Unrolled"):
        return {"solver": sinkdiv.Unrolled(iterations=iterations)}
    return {"derivative": "unrolled", "iterations": iterations}
