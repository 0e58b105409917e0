"""What every Sinkhorn loss of a run lets its user choose, and how the library is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sinkdiv
from sinkdiv.generative.settings import Settings, one_of, require, setting


@dataclass(frozen=True, kw_only=True)
class SinkhornSettings(Settings):
    """The value of a Sinkhorn loss and its derivative.

    Attributes:
        value: "entropic", OT_ε (F19); or "sharp", <P, C> (P19, G18).
        derivative: "auto" or "implicit", exact at the optimum; or "unrolled", through a fixed number of iterations.
        iterations: how many are unrolled (P19 takes 50, G18 10 to 100); 0 where the solve runs until it converges.
    """

    panel = "Sinkhorn loss"

    value: str = setting("entropic, or sharp as in the papers.", default="entropic", check=one_of("entropic", "sharp"))
    derivative: str = setting(
        "Of the value: auto, implicit or unrolled.", default="auto", check=one_of("auto", "implicit", "unrolled")
    )
    iterations: int = setting("Of an unrolled derivative.", default=0, shown="none")

    def check_together(self) -> None:
        super().check_together()
        unrolled = self.derivative == "unrolled"
        require((self.iterations > 0) == unrolled, "iterations", self.iterations, "--derivative unrolled and a number")
        require(self.derivative != "implicit" or self.value == "sharp", "derivative", "implicit", "--value sharp")

    def as_keywords(self, *, warm_start: bool = False) -> dict[str, Any]:
        """The keywords of the library's functions and modules that these settings are."""
        unrolled = self.derivative == "unrolled"
        solver = sinkdiv.Unrolled(iterations=self.iterations) if unrolled else sinkdiv.Auto(warm_start=warm_start)
        return {"value": self.value, "derivative": self.derivative, "solver": solver}
