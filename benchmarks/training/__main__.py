"""What share of a training step is its Sinkhorn loss, at the papers' batch sizes, on one thread?

    OMP_NUM_THREADS=1 python -m benchmarks.training

writes training_step.json and training_step.md. It needs the extra ``train``.

Sections: perceptron and convolutional (P19's autoencoders), generated (G18's generator of digits).
"""

from __future__ import annotations

import torch

from benchmarks.frame.book import Benchmark
from benchmarks.training.report import report
from benchmarks.training.sections import FULL, QUICK, SECTIONS, Context


def main(arguments: list[str] | None = None) -> None:
    benchmark = Benchmark("training_step", SECTIONS, report)
    options = benchmark.parser(__doc__).parse_args(arguments)
    torch.set_num_threads(1)
    sizes, size = (QUICK, "quick") if options.quick else (FULL, "full")
    benchmark.run(options.only, Context(options.out, sizes), size)


if __name__ == "__main__":
    main()
