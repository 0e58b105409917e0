"""Compiles what the Triton kernels' launches would launch, for a GPU that need not be there, and prints its resources.

`python compiled_kernels.py sm_90 representative` prints one JSON object a kernel: its name, what it is specialised for,
bytes of shared memory, and on NVIDIA's GPUs registers, bytes of stack, to which registers spill, the instructions of
loops (docs/decisions/0013) and vector loads. It needs a process in which TRITON_INTERPRET is not set.
"""

import json
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sinkdiv.costs import power
from sinkdiv.kernels.triton import operands, reductions, small

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

POINTERS = {
    torch.float32: "*fp32", torch.float64: "*fp64", torch.float16: "*fp16", torch.int32: "*i32", torch.int64: "*i64",
}  # fmt: skip

SHOWN = ("FORM", "FUNCTION", "D", "START", "TERM", "BOTH", "WEIGHT", "COLUMNS", "BM", "BN")


class Compiled:
    """A kernel whose launches are compiled instead."""

    def __init__(self, kernel, architecture):
        self._kernel, self._done = kernel, set()
        self._nvidia = architecture.startswith("sm_")
        self._target = (
            GPUTarget("cuda", int(architecture[3:]), 32) if self._nvidia else GPUTarget("hip", architecture, 64)
        )

    def __getitem__(self, grid):
        return self._launch

    def _launch(self, *arguments, **named):
        names = self._kernel.arg_names
        options = {name: named.pop(name) for name in list(named) if name not in names}
        values = {**dict(zip(names, arguments, strict=False)), **named}
        signature, constants, attributes = {}, {}, {}
        for index, parameter in enumerate(self._kernel.params):
            value = values[parameter.name]
            kind, constant, aligned = specialisation(parameter, value)
            signature[parameter.name] = kind
            if constant:
                constants[index,] = value
            if aligned:
                attributes[index,] = [["tt.divisibility", 16]]
        key = str((signature, constants, options))
        if key in self._done:
            return
        self._done.add(key)
        source = ASTSource(fn=self._kernel, signature=signature, constexprs=constants, attrs=attributes)
        if not self._nvidia:
            options.pop("maxnreg", None)
        kernel = triton.compile(source, target=self._target, options=options)
        shown = {name: values[name] for name in SHOWN if name in values}
        used = {"shared": kernel.metadata.shared}
        if self._nvidia:
            used |= resources(kernel.asm["cubin"])
            used["vector_loads"] = len(re.findall(r"ld\.global\S*\.v\d", kernel.asm["ptx"]))
        sys.stdout.write(json.dumps({"kernel": self._kernel.__name__, **shown, **used}) + "\n")


def specialisation(parameter, value):
    """(type, whether the value is compiled in, whether it is known to be a multiple of 16), as a launch finds them."""
    if parameter.is_constexpr:
        return "constexpr", True, False
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype], False, True
    if isinstance(value, float):
        return getattr(parameter, "annotation_type", None) or "fp32", False, False
    if value == 1 and not parameter.do_not_specialize:
        return "constexpr", True, False
    return "i32", False, value % 16 == 0 and not parameter.do_not_specialize


def resources(cubin):
    """Registers, bytes of stack, and the loops that take exponentials."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", output_of("cuobjdump", "-res-usage", file.name)))
        code = output_of("nvdisasm", "-c", file.name)
    stack = int(found["STACK"]) + int(found["LOCAL"])
    return {"registers": int(found["REG"]), "stack": stack, "loops": list(loops(code))}


def output_of(tool, *arguments):
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


def loops(code):
    """(instructions, exponentials) of a thread in each loop of machine code: from a label to the branch back to it."""
    labels, instructions = {}, []
    for line in code.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P[0-9T]+ )?([A-Z0-9_.]+)(.*)", line):
            instructions.append(found.groups())
    for place, (operation, rest) in enumerate(instructions):
        target = re.search(r"\.L_x_\d+", rest)
        if operation.startswith("BRA") and target and labels.get(target[0], place) < place:
            body = [name for name, _ in instructions[labels[target[0]] : place + 1]]
            if exponentials := sum(name.startswith("MUFU.EX2") for name in body):
                yield len(body), exponentials


def of_points(d, operations, *, dtype=torch.float32, precision="high", p=2, n=300):
    """Compile some operations of points in d dimensions."""
    x, y = torch.zeros(1, n, d, dtype=dtype), torch.zeros(1, n, d, dtype=dtype)
    launch(reductions.PointReductions(x, y, power(p), precision=precision), x, y, operations)


def of_matrix(operations, *, dtype=torch.float32, n=300):
    launch(reductions.MatrixReductions(torch.zeros(1, n, n, dtype=dtype)), None, None, operations)


def launch(pairs, x, y, operations):
    shape, dtype = pairs._operands.shape, torch.float64 if pairs._operands.wide else torch.float32
    h, eps = torch.zeros(shape[0], shape[1], dtype=dtype), torch.ones(shape[0], 1, dtype=dtype)
    arguments = {
        "softmin": (h, eps), "softmin near": (h, eps, h), "ctransform": (h,), "marginals": (h, h, eps),
        "plan_cost": (h, h, eps), "plan_gradient": (h, h, eps), "gradient_tangent": (h, h, eps, h, h, x, y),
        "cost_product": (h, h, eps, h[:, :, None]),
    }  # fmt: skip
    for operation in operations:
        getattr(pairs, operation.split()[0])(*arguments[operation])


def representative():
    """A kernel of each kind; float64 and streamed ones, which take long to compile, by their softmins."""
    of_points(3, ("softmin", "softmin near", "marginals", "plan_gradient", "cost_product"))
    of_points(64, ("softmin near", "marginals", "gradient_tangent"))
    of_points(64, ("softmin near",), precision="tf32")
    of_points(512, ("softmin near",))
    of_points(3, ("softmin near", "plan_gradient"), dtype=torch.float64)
    of_points(64, ("softmin near",), p=1)
    of_matrix(("softmin near", "marginals"))


def few():
    """What a solve is made of, and TF32."""
    of_points(3, ("softmin near",))
    of_points(64, ("softmin near", "marginals"))
    of_points(64, ("softmin near",), precision="tf32")


def smallest():
    """Kernels that share the most memory, with the last tile of each table."""
    for table in (operands.SUM_TILES, operands.SOFTMIN_TILES, operands.PRODUCT_TILES):
        table.update({key: tiles[-1:] for key, tiles in table.items()})
    of_points(128, ("softmin", "marginals", "plan_gradient"))


def small_solves():
    """Small problems solved whole: the least tiles, lopsided ones, the largest that stays in registers, and beyond."""
    for n, m, symmetric in ((1, 1, False), (2, 64, False), (256, 1, False), (128, 128, True), (256, 256, False)):
        a, b = torch.zeros(1, n), torch.zeros(1, m)
        small.solve_small(
            torch.zeros(1, n, m), a, b, torch.zeros(1), torch.ones(1, dtype=torch.float64), (math.inf, math.inf),
            symmetric=symmetric, start=None, tol=1e-3, max_passes=100, checks=50,
        )  # fmt: skip


if __name__ == "__main__":
    for name in ("accelerated_kernel", "symmetric_kernel"):
        setattr(small, name, Compiled(getattr(small, name), sys.argv[1]))
    for name in ("softmin_kernel", "joined_kernel", "ctransform_kernel", "sums_kernel", "products_kernel"):
        setattr(reductions, name, Compiled(getattr(reductions, name), sys.argv[1]))
    operands.multiplies_asynchronously = lambda device: sys.argv[1] == "sm_90"
    {"representative": representative, "few": few, "smallest": smallest, "small": small_solves}[sys.argv[2]]()
