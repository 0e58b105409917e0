"""Small problems, solved whole in one launch: one program a problem, nothing read back between two passes.

The algorithms are those of solvers/accelerated.py and solvers/symmetric.py; their docstrings say why they do what they
do here, and the names are the same. Potentials, the history of the extrapolation and every decision stay in registers.
So does the cost matrix up to `RESIDENT` bytes; a larger one is read in blocks of rows, once in each sweep, from the
cache. A sweep finds both softmins of a step: the columns' sums take in a block of rows as soon as its potential is
known.

Softmins are base 2: exponents h_j − C_ij·scale with scale = 1/(ε ln 2). The algebra on few numbers is in float64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: The most rows or columns of a problem that is solved here.
SIDE = 256

#: The largest part of a cost matrix that is held in registers: a quarter of a multiprocessor's.
RESIDENT = 2**16

_DEPTH = tl.constexpr(8)
_KEPT = tl.constexpr(2)
_RIDGE = tl.constexpr(1e-8)
_MIXING = tl.constexpr(1.5)
_SELF_MIXING = tl.constexpr(0.5)
_CAP = tl.constexpr(8.0)
_FALL = tl.constexpr(0.1)
_PLAIN_STEPS = tl.constexpr(64)
_FIRST = tl.constexpr(0.125)
_LEVEL_ERROR = tl.constexpr(0.2)
_LEVEL_STEPS = tl.constexpr(6)
_START_ERROR = tl.constexpr(1.0)
_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _log2(weights):
    """−∞ where there is no weight."""
    return tl.where(weights > 0, tl.log2(tl.where(weights > 0, weights, 1.0)), float("-inf"))


@triton.jit
def _log_sum(exponents, axis: tl.constexpr):
    """log₂ Σ 2^exponents."""
    top = tl.max(exponents, axis)
    return top + tl.log2(tl.sum(tl.exp2(exponents - tl.expand_dims(top, axis)), axis))


@triton.jit
def _costs(C, first, n, m, R: tl.constexpr, M: tl.constexpr):
    """R rows of a cost matrix (n, m), zero beyond its edges."""
    rows, columns = first + tl.arange(0, R), tl.arange(0, M)
    mask = (rows < n)[:, None] & (columns < m)[None, :]
    return tl.load(C + rows[:, None] * m + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _placed(values, block, whole, K: tl.constexpr):
    """``whole`` (K, R) with one block of it replaced by ``values`` (R,)."""
    return tl.where((tl.arange(0, K) == block)[:, None], values[None, :], whole)


@triton.jit
def _row_sums(resident, C, h, scale, n, m, N: tl.constexpr, M: tl.constexpr, R: tl.constexpr):
    """log₂ Σ_j 2^(h_j − scale·C_ij), (N,)."""
    if R == N:
        return _log_sum(h[None, :] - resident * scale, 1)
    sums = tl.zeros((N // R, R), resident.dtype)
    for block in range(N // R):
        costs = _costs(C, block * R, n, m, R, M)
        sums = _placed(_log_sum(h[None, :] - costs * scale, 1), block, sums, N // R)
    return tl.reshape(sums, (N,))


@triton.jit
def _sweep(resident, C, a, h, damping, scale, n, m, N: tl.constexpr, M: tl.constexpr, R: tl.constexpr):
    """Both softmins of a step: R_i = log₂ Σ_j 2^(h_j − scale·C_ij), and S_j = log₂ Σ_i 2^(u_i − scale·C_ij), where
    u = log₂ a − damping·R is what the rows send back."""
    if R == N:
        rows = _log_sum(h[None, :] - resident * scale, 1)
        sent = _log2(tl.load(a + tl.arange(0, N), mask=tl.arange(0, N) < n, other=0.0)) - damping * rows
        return rows, _log_sum(sent[:, None] - resident * scale, 0)
    sums = tl.zeros((N // R, R), resident.dtype)
    top = tl.full((M,), float("-inf"), resident.dtype)
    total = tl.zeros((M,), resident.dtype)
    for block in range(N // R):
        costs = _costs(C, block * R, n, m, R, M)
        rows = _log_sum(h[None, :] - costs * scale, 1)
        sums = _placed(rows, block, sums, N // R)
        numbers = block * R + tl.arange(0, R)
        sent = _log2(tl.load(a + numbers, mask=numbers < n, other=0.0)) - damping * rows
        exponents = sent[:, None] - costs * scale
        higher = tl.maximum(top, tl.max(exponents, 0))
        base = tl.where(higher > float("-inf"), higher, 0.0)  # no row of this block or of those before has weight
        total = total * tl.exp2(top - base) + tl.sum(tl.exp2(exponents - base[None, :]), 0)
        top = higher
    return tl.reshape(sums, (N,)), top + tl.log2(total)


@triton.jit
def _log_target(log_weights, potential, rate):
    """The wanted marginal, a·exp(−f/ρ), as a logarithm; ``rate`` is 1/(ρ ln 2), 0 where the marginal is hard."""
    return log_weights - potential * rate


@triton.jit
def _residual(log_weights, potential, raw, scale, rate):
    """See `Problem.residual`."""
    logs = _log_target(log_weights, potential, rate)
    has_mass = logs > float("-inf")
    target = tl.exp2(logs - tl.max(logs, 0))
    change = tl.where(has_mass, (potential - raw) * scale + potential * rate, 0.0)
    return tl.sum(target * tl.abs(tl.exp2(change) - 1), 0) / tl.sum(target, 0)


@triton.jit
def _expm1(x):
    """e^x − 1 in float64."""
    series = 1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7)))))
    return tl.where(tl.abs(x) < 0.01, x * series, tl.exp(x) - 1)


@triton.jit
def _gain(weights, potential, rho, SOFT: tl.constexpr):
    """What the dual gains from a potential, in float64."""
    potential = potential.to(tl.float64)
    if SOFT:
        potential = -rho * _expm1(-potential / rho)
    return tl.sum(weights.to(tl.float64) * potential, 0)


@triton.jit
def _value(a, b, f, g, eps, rho_f, rho_g, SOFT: tl.constexpr):
    """The dual value of g and its best partner f; see `Problem.dual_value`."""
    mass = tl.sum(a.to(tl.float64), 0)
    plan_mass = mass
    if SOFT:
        plan_mass = tl.sum(a.to(tl.float64) * tl.exp(-f.to(tl.float64) / rho_f), 0)
    attained = _gain(a, f, rho_f, SOFT) + _gain(b, g, rho_g, SOFT)
    return attained - eps * (plan_mass - mass * tl.sum(b.to(tl.float64), 0))


@triton.jit
def _centred(vector, metric, MODULO_CONSTANTS: tl.constexpr):
    vector = vector.to(tl.float64)
    if MODULO_CONSTANTS:
        vector = vector - tl.sum(metric * vector, 0)
    return vector


@triton.jit
def _norm(vector, metric):
    vector = _centred(vector, metric, True)
    return tl.sqrt(tl.sum(metric * vector * vector, 0))


@triton.jit
def _products(dr, vector, metric, MODULO_CONSTANTS: tl.constexpr):
    """The inner products (8,) of a vector with all Δr_j: it is enough that one of the two is centred."""
    weighted = metric * _centred(vector, metric, MODULO_CONSTANTS)
    return tl.sum(dr.to(tl.float64) * weighted[None, :], 1)


@triton.jit
def _append(mixed, dr, gram, dx_new, dr_new, metric, newest, MIXING: tl.constexpr, MODULO_CONSTANTS: tl.constexpr):
    """The history with the pair (Δx, Δr) in the place ``newest``."""
    new = tl.arange(0, _DEPTH) == newest
    mixed = tl.where(new[:, None], (dx_new + dr_new * MIXING)[None, :], mixed)
    dr = tl.where(new[:, None], dr_new[None, :], dr)
    products = _products(dr, dr_new, metric, MODULO_CONSTANTS)
    gram = tl.where(new[:, None], products[None, :], tl.where(new[None, :], products[:, None], gram))
    return mixed, dr, gram


@triton.jit
def _least_squares(gram, right, newest, count):
    """γ (8,) of the regularised normal equations of the ``count`` newest pairs, by Gauss-Jordan elimination."""
    places = tl.arange(0, _DEPTH)
    valid = ((newest - places) & (_DEPTH - 1)) < count
    diagonal = places[:, None] == places[None, :]
    A = tl.where(valid[:, None] & valid[None, :], gram, 0.0)
    trace = tl.sum(tl.sum(tl.where(diagonal, A, 0.0), 1), 0)
    A = A + tl.where(diagonal, tl.where(trace > 0, trace * _RIDGE, 1.0), 0.0)
    gamma = tl.where(valid, right, 0.0)
    for age in range(count):
        pivotal = places == ((newest - age) & (_DEPTH - 1))
        row = tl.sum(tl.where(pivotal[:, None], A, 0.0), 0)
        column = tl.sum(tl.where(pivotal[None, :], A, 0.0), 1)
        pivot = tl.sum(tl.where(pivotal, column, 0.0), 0)
        row = row / pivot
        known = tl.sum(tl.where(pivotal, gamma, 0.0), 0) / pivot
        A = tl.where(pivotal[:, None], row[None, :], A - column[:, None] * row[None, :])
        gamma = tl.where(pivotal, known, gamma - column * known)
    return tl.where(valid & (tl.abs(gamma) < float("inf")), gamma, 0.0)


@triton.jit
def _step(mixed, dr, gram, r, metric, newest, count, MIXING: tl.constexpr, MODULO_CONSTANTS: tl.constexpr):
    """The step from the point with residual r; β r where there is no history."""
    step = r * MIXING
    if count > 0:
        gamma = _least_squares(gram, _products(dr, r, metric, MODULO_CONSTANTS), newest, count)
        step -= tl.sum(tl.where((gamma != 0)[:, None], gamma.to(r.dtype)[:, None] * mixed, 0.0), 0)
    return step


@triton.jit(do_not_specialize=["n", "m", "checks", "steps", "most"])
def _accelerated(
    C_all, a_all, b_all, starts, spreads, results, passes, history, n, m, checks, steps, most,
    eps: tl.float64, rho_f: tl.float64, rho_g: tl.float64, tol: tl.float64,
    WARM: tl.constexpr, SOFT: tl.constexpr, N: tl.constexpr, M: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """A problem of two sides; ``most`` of its ``steps`` may be above the target ε."""
    problem = tl.program_id(0).to(tl.int64)
    C, a_all, b_all = C_all + problem * n * m, a_all + problem * n, b_all + problem * m
    rows, columns = tl.arange(0, N), tl.arange(0, M)
    a = tl.load(a_all + rows, mask=rows < n, other=0.0)
    b = tl.load(b_all + columns, mask=columns < m, other=0.0)
    T = b.dtype
    log_a, log_b, mass = _log2(a), _log2(b), tl.sum(a.to(tl.float64), 0)
    metric = b.to(tl.float64) / tl.sum(b.to(tl.float64), 0)
    spread = tl.load(spreads + problem).to(tl.float64)
    resident = _costs(C, 0, n, m, R, M)
    eps, rho_f, rho_g = tl.full((), eps, tl.float64), tl.full((), rho_f, tl.float64), tl.full((), rho_g, tl.float64)
    UNIT: tl.constexpr = 2.0**-23 if T == tl.float32 else 2.0**-52

    # The annealing: ε is `factor` times its target.
    finite = spread < float("inf")
    cold = tl.full((), 1.0, tl.float64)
    level = 0
    while (cold * eps < spread * _FIRST) & (level < most) & finite:
        cold *= 4
        level += 1
    factor = tl.full((), 1.0, tl.float64) if WARM else cold
    level_steps = 0

    # The ascent.
    fall = spread / eps * (4 * UNIT) + _FALL
    g = tl.zeros((M,), T)
    if WARM:
        g = tl.load(starts + problem * m + columns, mask=columns < m, other=0.0)
    g_ref, r_ref = tl.zeros((M,), T), tl.zeros((M,), T)
    best_dual = tl.full((), float("-inf"), tl.float64)
    length = tl.full((), 0.0, tl.float64)
    failed = tl.full((), 0, tl.int32) > 0
    plain = 0
    penalty = 1
    mixed, dr = tl.zeros((_DEPTH, M), T), tl.zeros((_DEPTH, M), T)
    gram = tl.zeros((_DEPTH, _DEPTH), tl.float64)
    newest = 0
    count = 0

    best = tl.full((), float("inf"), T)
    value = tl.full((), 0.0, tl.float64)
    found = tl.full((), 0, tl.int32) > 0
    f_out = results + problem * (2 * n + 2 * m + 3)
    g_out = f_out + 2 * n
    step = 0
    running = finite & (steps > 0)
    while running:
        eps_now = eps * factor
        scale, unit = (1 / (eps_now / _LOG2E)).to(T), (eps_now / _LOG2E).to(T)
        damping_f, damping_g = (1 / (1 + eps_now / rho_f)).to(T), (1 / (1 + eps_now / rho_g)).to(T)
        row_sums, column_sums = _sweep(
            resident, C, a_all, log_b + g * scale, damping_f, scale, n, m, N, M, R
        )
        raw_f, raw_g = -unit * row_sums, -unit * column_sums
        rate_f, rate_g = (1 / (rho_f / _LOG2E)).to(T), (1 / (rho_g / _LOG2E)).to(T)
        if SOFT:  # see Problem.translated
            excess = _log_sum(_log_target(log_b, g, rate_g), 0) - _log_sum(_log_target(log_a, damping_f * raw_f, rate_f), 0)
            t = (excess / _LOG2E / (1 / (rho_f + eps_now) + 1 / rho_g)).to(T)
            g += t
            raw_f -= t
            raw_g += damping_f * t
        f, updated = damping_f * raw_f, damping_g * raw_g
        error = _residual(log_b, g, raw_g, scale, rate_g)

        at_target = factor == 1.0
        tl.store(history + problem * checks + step, tl.where(at_target, error, float("nan")).to(tl.float32), mask=step < checks)
        better = at_target & (error <= best)
        kept_n, kept_m = tl.where(better, n, 0), tl.where(better, m, 0)
        tl.store(f_out + rows, f, mask=rows < kept_n)
        tl.store(f_out + n + rows, raw_f, mask=rows < kept_n)
        tl.store(g_out + columns, g, mask=columns < kept_m)
        tl.store(g_out + m + columns, raw_g, mask=columns < kept_m)
        best = tl.where(better, error, best)
        found = found | better
        if better:
            value = _value(a, b, f, g, eps, rho_f, rho_g, SOFT)

        # Ascent.next
        eps_T = eps_now.to(T)
        r = tl.where(b > 0, (updated - g) / eps_T, 0.0)
        dual = (_gain(a, f, rho_f, SOFT) * (1 + eps_now / rho_f) + _gain(b, g, rho_g, SOFT)) / (eps_now * mass)
        fell = (dual >= best_dual - fall) == 0
        failed_again = fell & failed
        referred = best_dual > float("-inf")
        count = tl.where(fell | (referred == 0), 0, count)
        newest = (newest + 1) & (_DEPTH - 1)
        mixed, dr, gram = _append(
            mixed, dr, gram, (g - g_ref) / eps_T, r - r_ref, metric, newest, _MIXING, True
        )
        count = tl.where(referred & (failed_again == 0), count + 1, 0)
        count = tl.where(count == _DEPTH, _KEPT, count)
        g_ref, r_ref = tl.where(fell, g_ref, g), tl.where(fell, r_ref, r)
        best_dual = tl.where(dual > best_dual, dual, best_dual)
        failed = fell & (failed_again == 0)
        plain = tl.where(failed_again, penalty, tl.maximum(plain - 1, 0))
        penalty = tl.where(failed_again, tl.minimum(2 * penalty, _PLAIN_STEPS), penalty)

        move = _step(mixed, dr, gram, r_ref, metric, newest, count, _MIXING, True)
        last = tl.where(plain > 0, 0.0, length)
        longest = tl.where(failed, last / 2, tl.maximum(last, _norm(r_ref, metric)) * _CAP)
        extrapolate = (plain == 0) & (count > 0)
        move_length = _norm(move, metric)
        length = tl.where(extrapolate, tl.minimum(move_length, longest), last)
        shrink = tl.where(move_length > longest, longest / move_length, 1.0).to(T)
        move = tl.where(extrapolate, shrink * move, r_ref)

        # Annealing.advance
        before = factor
        done = (error <= _LEVEL_ERROR) | (level_steps + 1 >= _LEVEL_STEPS)
        factor = tl.where(done, tl.maximum(factor / 4, 1.0), factor)
        if WARM:
            factor = tl.where(step > 0, factor, tl.where(error <= _START_ERROR, before, cold))
        step += 1
        factor = tl.where(step >= most, 1.0, factor)
        moved = factor != before
        level_steps = tl.where(moved, 0, level_steps + 1)
        # Ascent.restart
        count = tl.where(moved, 0, count)
        best_dual = tl.where(moved, float("-inf"), best_dual)
        length = tl.where(moved, 0.0, length)
        failed = failed & (moved == 0)
        plain = tl.where(moved, 0, plain)
        penalty = tl.where(moved, 1, penalty)

        g = tl.where(moved, updated, tl.where(b > 0, g_ref + eps_T * move, updated))
        running = (step < steps) & ((best.to(tl.float64) <= tol) == 0)

    numbers = g_out + 2 * m
    tl.store(numbers, best)
    tl.store(numbers + 1, value.to(T))
    tl.store(numbers + 2, spread.to(T))
    tl.store(passes + problem, (2 * step).to(tl.int64))
    tl.store(f_out + rows, tl.zeros((N,), T), mask=rows < tl.where(found, 0, n))
    tl.store(f_out + n + rows, tl.zeros((N,), T), mask=rows < tl.where(found, 0, n))
    tl.store(g_out + columns, tl.zeros((M,), T), mask=columns < tl.where(found, 0, m))
    tl.store(g_out + m + columns, tl.zeros((M,), T), mask=columns < tl.where(found, 0, m))


@triton.jit(do_not_specialize=["n", "checks", "steps"])
def _symmetric(
    C_all, a_all, starts, spreads, results, passes, history, n, checks, steps,
    eps: tl.float64, rho: tl.float64, tol: tl.float64,
    WARM: tl.constexpr, SOFT: tl.constexpr, N: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """A problem whose two sides are the same."""
    problem = tl.program_id(0).to(tl.int64)
    C = C_all + problem * n * n
    rows = tl.arange(0, N)
    a = tl.load(a_all + problem * n + rows, mask=rows < n, other=0.0)
    T = a.dtype
    log_a = _log2(a)
    metric = a.to(tl.float64) / tl.sum(a.to(tl.float64), 0)
    spread = tl.load(spreads + problem).to(tl.float64)
    resident = _costs(C, 0, n, n, R, N)
    eps, rho = tl.full((), eps, tl.float64), tl.full((), rho, tl.float64)
    scale, unit, eps_T = (1 / (eps / _LOG2E)).to(T), (eps / _LOG2E).to(T), eps.to(T)
    damping = (1 / (1 + eps / rho)).to(T)
    rate = (1 / (rho / _LOG2E)).to(T)

    f = tl.zeros((N,), T)
    if WARM:
        f = tl.load(starts + problem * n + rows, mask=rows < n, other=0.0)
    last_f, last_r = tl.zeros((N,), T), tl.zeros((N,), T)
    last_error = tl.full((), float("inf"), T)
    averaging = tl.full((), 0, tl.int32) > 0
    mixed, dr = tl.zeros((_DEPTH, N), T), tl.zeros((_DEPTH, N), T)
    gram = tl.zeros((_DEPTH, _DEPTH), tl.float64)
    newest = 0
    count = 0

    best = tl.full((), float("inf"), T)
    value = tl.full((), 0.0, tl.float64)
    found = tl.full((), 0, tl.int32) > 0
    f_out = results + problem * (2 * n + 3)
    step = 0
    running = (spread < float("inf")) & (steps > 0)
    while running:
        raw = -unit * _row_sums(resident, C, log_a + f * scale, scale, n, n, N, N, R)
        updated = damping * raw
        f = tl.where(a > 0, f, updated)
        error = 2 * _residual(log_a, f, raw, scale, rate)

        tl.store(history + problem * checks + step, error.to(tl.float32), mask=step < checks)
        better = error <= best
        kept_n = tl.where(better, n, 0)
        tl.store(f_out + rows, f, mask=rows < kept_n)
        tl.store(f_out + n + rows, raw, mask=rows < kept_n)
        best = tl.where(better, error, best)
        found = found | better
        if better:
            value = _value(a, a, damping * raw, f, eps, rho, rho, SOFT)

        r = (updated - f) / eps_T
        averaging = averaging | (error > last_error)
        newest = (newest + 1) & (_DEPTH - 1)
        mixed, dr, gram = _append(
            mixed, dr, gram, (f - last_f) / eps_T, r - last_r, metric, newest, _SELF_MIXING, False
        )
        count = tl.where(averaging | (step == 0), 0, count + 1)
        count = tl.where(count == _DEPTH, _KEPT, count)
        last_f, last_r, last_error = f, r, error
        f += eps_T * _step(mixed, dr, gram, r, metric, newest, count, _SELF_MIXING, False)
        step += 1
        running = (step < steps) & ((best.to(tl.float64) <= tol) == 0)

    numbers = f_out + 2 * n
    tl.store(numbers, best)
    tl.store(numbers + 1, value.to(T))
    tl.store(numbers + 2, spread.to(T))
    tl.store(passes + problem, step.to(tl.int64))
    tl.store(f_out + rows, tl.zeros((N,), T), mask=rows < tl.where(found, 0, n))
    tl.store(f_out + n + rows, tl.zeros((N,), T), mask=rows < tl.where(found, 0, n))


def solve_small(
    C: Tensor,
    a: Tensor,
    b: Tensor,
    spread: Tensor,
    eps: float,
    rho: tuple[float, float],
    symmetric: bool,
    start: Tensor | None,
    tol: float,
    max_passes: int,
    checks: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve a batch of problems with costs C (B, n, m), weights a (B, n) and b (B, m) and the given spreads (B,).

    Returns the results (B, k), of each problem f (n), raw_f (n), g (m), raw_g (m), the marginal error, the dual value
    and the spread of the cost, where g and raw_g are left out if the problem is symmetric; then the passes (B,), int64,
    and the errors at the first ``checks`` convergence tests (B, checks), float32, NaN above the target ε.
    """
    batch, n, m = C.shape
    sides = 2 * n if symmetric else 2 * (n + m)
    results = C.new_empty(batch, sides + 3)
    passes = torch.empty(batch, dtype=torch.int64, device=C.device)
    history = torch.empty(batch, checks, dtype=torch.float32, device=C.device)
    N, M = (max(16, triton.next_power_of_2(count)) for count in (n, m))
    R = min(N, RESIDENT // (M * C.element_size()))
    options = {"num_warps": max(1, min(16, R * M * C.element_size() // 4096)), "enable_fp_fusion": True}
    C, a, b = C.contiguous(), a.contiguous(), b.contiguous()
    start = None if start is None else start.contiguous()
    given, soft = (spread if start is None else start), rho[0] < float("inf")
    with torch.cuda.device_of(C):
        if symmetric:
            _symmetric[(batch,)](
                C, a, given, spread, results, passes, history, n, checks, max_passes,
                eps, rho[0], tol, start is not None, soft, N, R, **options,
            )  # fmt: skip
        else:
            _accelerated[(batch,)](
                C, a, b, given, spread, results, passes, history, n, m, checks, max(1, max_passes // 2),
                max(0, max_passes // 4 - 1), eps, *rho, tol, start is not None, soft, N, M, R, **options,
            )  # fmt: skip
    return results, passes, history
