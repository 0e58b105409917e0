"""Small problems, solved whole in one launch. One program solves one problem, and the host reads nothing in between.

The algorithms are those of solvers/accelerated.py and solvers/symmetric.py; their docstrings say why they do what they
do here, and the names are the same. Potentials, the history of the extrapolation and every decision stay in registers.
So does a cost matrix of one `TILE`; a larger matrix is read in blocks of rows, once a step, from the cache. Numbers
on which a decision depends are in float64.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sinkdiv.kernels.triton.anderson import anderson_step, appended, centred_on, counted, empty_history
from sinkdiv.kernels.triton.sweeps import both_sums, costs_of, log2_weights, log_sum, row_sums, spread_out
from sinkdiv.kernels.triton.tiles import INF, LOG2E

#: The largest tile of a cost matrix that is held in registers: 64 or 16 entries for each of 256 threads. With more
#: entries registers would be spilled.
TILE = {torch.float32: 2**14, torch.float64: 2**12}

#: The largest number of steps that a kernel can count.
MOST_STEPS = 2**31 - 1

_MIXING = tl.constexpr(1.5)
_SELF_MIXING = tl.constexpr(0.5)
_CAP = tl.constexpr(8.0)
_FALL = tl.constexpr(0.1)
_PLAIN_STEPS = tl.constexpr(64)
_FIRST = tl.constexpr(0.125)
_LEVEL_ERROR = tl.constexpr(0.2)
_LEVEL_STEPS = tl.constexpr(6)
_START_ERROR = tl.constexpr(1.0)


@triton.jit
def _damping(eps, rho, T: tl.constexpr, SOFT: tl.constexpr):
    """See `Problem.damped`."""
    damping = tl.full((), 1.0, tl.float64)
    if SOFT:
        damping = 1 / (1 + eps / rho)
    return damping.to(T)


@triton.jit
def _log_target(log_weights, potential, rho):
    """The logarithm (base 2) of a soft marginal's target a·exp(−f/ρ)."""
    return log_weights - potential * (1 / (rho / LOG2E)).to(potential.dtype)


@triton.jit
def _residual(shares, log_weights, potential, raw, scale, rho, SOFT: tl.constexpr):
    """See `Problem.residual`; ``shares`` are the weights relative to their sum."""
    change, target = (potential - raw) * scale, shares
    if SOFT:
        logs = _log_target(log_weights, potential, rho)
        target = tl.exp2(logs - tl.max(logs, 0))
        target = target / tl.sum(target, 0)
        change += potential * (1 / (rho / LOG2E)).to(potential.dtype)
    return tl.sum(target * tl.abs(tl.exp2(tl.where(shares > 0, change, 0.0)) - 1), 0)


@triton.jit
def _translated(g, raw_f, raw_g, log_a, log_b, damping_f, eps, rho_f, rho_g):
    """See `Problem.translated`. The softmin of the columns changes with that of the rows."""
    columns, rows = _log_target(log_b, g, rho_g), _log_target(log_a, damping_f * raw_f, rho_f)
    excess = (log_sum(columns, 0) - log_sum(rows, 0)).to(tl.float64) / LOG2E
    t = (excess / (1 / (rho_f + eps) + 1 / rho_g)).to(g.dtype)
    return g + t, raw_f - t, raw_g + damping_f * t


@triton.jit
def _expm1(x):
    """e^x − 1 in float64."""
    series = 1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7)))))
    return tl.where(tl.abs(x) < 0.01, x * series, tl.exp(x) - 1)


@triton.jit
def _gain(weights, potential, rho, SOFT: tl.constexpr):
    """What the dual gains from a potential, in float64. Potentials without weight may be out of range."""
    potential = tl.where(weights > 0, potential, 0.0).to(tl.float64)
    if SOFT:
        potential = -rho * _expm1(-potential / rho)
    return tl.sum(weights.to(tl.float64) * potential, 0)


@triton.jit
def _attained(a, b, f, g, eps, rho_f, rho_g, SOFT: tl.constexpr):
    """The dual value of g and its best partner f, up to the constant ε·m_a(1 − m_b).

    With soft marginals the mass of their plan is m_a − (gain of f)/ρ.
    """
    gain_f = _gain(a, f, rho_f, SOFT)
    if SOFT:
        gain_f *= 1 + eps / rho_f
    return gain_f + _gain(b, g, rho_g, SOFT)


@triton.jit
def _alternated(
    resident, C, a_all, weights, logs, shares, g, eps, scale, unit, rho, n, m,
    SOFT: tl.constexpr, N: tl.constexpr, M: tl.constexpr, R: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """One step from g: (g, f, raw_f, raw_g), what a plain update makes of g, the marginal error and the dual value.

    Pairs belong to the rows and the columns; ``scale`` is 1/(ε ln 2), ``unit`` its inverse.
    """
    damping_f, damping_g = _damping(eps, rho[0], g.dtype, SOFT), _damping(eps, rho[1], g.dtype, SOFT)
    rows, columns = both_sums(resident, C, a_all, logs[1] + g * scale, damping_f, scale, n, m, N, M, R, L)
    raw_f, raw_g = -unit * spread_out(rows), -unit * spread_out(columns)
    if SOFT:
        g, raw_f, raw_g = _translated(g, raw_f, raw_g, logs[0], logs[1], damping_f, eps, rho[0], rho[1])
    f = damping_f * raw_f
    error = _residual(shares, logs[1], g, raw_g, scale, rho[1], SOFT)
    attained = _attained(weights[0], weights[1], f, g, eps, rho[0], rho[1], SOFT)
    return g, f, raw_f, raw_g, damping_g * raw_g, error, attained


@triton.jit
def _store_side(out, entries, count, potential, raw):
    """Write the results of one side: the potential and its softmin."""
    tl.store(out + entries, potential, mask=entries < count)
    tl.store(out + count + entries, raw, mask=entries < count)


@triton.jit
def _ascended(ascent, history, g, r, dual, fall, unit, metric):
    """`Ascent.next`: the next g, the ascent and the history. ``unit`` (1/ε) and ``r`` are those of this step."""
    g_ref, r_ref, best_dual, length, failed, plain, penalty = ascent
    fell = (dual >= best_dual - fall) == 0
    failed_again = fell & failed
    referred = best_dual > -INF
    valid = tl.where(fell | (referred == 0), 0, history[4])
    history = appended(history, (g - g_ref) * unit, r - r_ref, metric, _MIXING, True)
    history = counted(history, tl.where(referred & (failed_again == 0), valid + 1, 0))
    g_ref, r_ref = tl.where(fell, g_ref, g), tl.where(fell, r_ref, r)
    best_dual = tl.where(dual > best_dual, dual, best_dual)
    failed = fell & (failed_again == 0)
    plain = tl.where(failed_again, penalty, tl.maximum(plain - 1, 0))
    penalty = tl.where(failed_again, tl.minimum(2 * penalty, _PLAIN_STEPS), penalty)

    centred = centred_on(r_ref, metric, True)
    step = anderson_step(history, r_ref, metric * centred, _MIXING)
    last = tl.where(plain > 0, 0.0, length)
    plain_length = tl.sqrt(tl.sum(metric * centred * centred, 0))
    longest = tl.where(failed, last / 2, tl.maximum(last, plain_length) * _CAP)
    centred = centred_on(step, metric, True)
    wanted = tl.sqrt(tl.sum(metric * centred * centred, 0))
    extrapolate = (plain == 0) & (history[4] > 0)
    length = tl.where(extrapolate, tl.minimum(wanted, longest), last)
    shrink = tl.minimum(wanted, longest).to(r.dtype) / tl.where(wanted > 0, wanted, 1.0).to(r.dtype)
    move = tl.where(extrapolate, shrink * step, r_ref)
    return g_ref + move / unit, (g_ref, r_ref, best_dual, length, failed, plain, penalty), history


@triton.jit
def _restarted(ascent, history, moved):
    """`Ascent.restart`, if ε has changed."""
    g_ref, r_ref, best_dual, length, failed, plain, penalty = ascent
    best_dual, length = tl.where(moved, -INF, best_dual), tl.where(moved, 0.0, length)
    plain, penalty = tl.where(moved, 0, plain), tl.where(moved, 1, penalty)
    ascent = g_ref, r_ref, best_dual, length, failed & (moved == 0), plain, penalty
    return ascent, counted(history, tl.where(moved, 0, history[4]))


@triton.jit
def _first_factor(eps, spread, most):
    """The first ε, relative to the target: a power of 4, at most 4^most."""
    factor = tl.full((), 1.0, tl.float64)
    level = 0
    while (factor * eps < spread * _FIRST) & (level < most):
        factor *= 4
        level += 1
    return factor


@triton.jit
def _next_factor(factor, cold, level_steps, error, step, most, WARM: tl.constexpr):
    """`Annealing.advance`: the next ε, relative to the target."""
    done = (error <= _LEVEL_ERROR) | (level_steps + 1 >= _LEVEL_STEPS)
    following = tl.where(done, tl.maximum(factor / 4, 1.0), factor)
    if WARM:
        following = tl.where(step > 0, following, tl.where(error <= _START_ERROR, factor, cold))
    return tl.where(step + 1 >= most, 1.0, following)


@triton.jit(do_not_specialize=["n", "m", "checks", "steps", "most"])
def accelerated_kernel(
    C, a, b, start, spread, eps, results, passes, errors, n, m, checks, steps, most,
    rho_f: tl.float64, rho_g: tl.float64, tol: tl.float64,
    WARM: tl.constexpr, SOFT: tl.constexpr, N: tl.constexpr, M: tl.constexpr, R: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """Solve a problem of two sides. Fewer than ``most`` of its ``steps`` are above the target, its entry of ``eps``."""
    problem = tl.program_id(0).to(tl.int64)
    eps, rho = tl.load(eps + problem), (tl.full((), rho_f, tl.float64), tl.full((), rho_g, tl.float64))
    rows, columns = tl.arange(0, N), tl.arange(0, M)
    C, a, b, errors = C + problem * n * m, a + problem * n, b + problem * m, errors + problem * checks
    out_f = results + problem * (2 * n + 2 * m + 3)
    out_g, numbers = out_f + 2 * n, out_f + 2 * n + 2 * m
    resident = costs_of(C, 0, n, m, R, M, L)
    a_all, a = a, tl.load(a + rows, mask=rows < n, other=0.0)
    b = tl.load(b + columns, mask=columns < m, other=0.0)
    T: tl.constexpr = b.dtype
    UNIT: tl.constexpr = 2.0**-52 if tl.float64 == T else 2.0**-23
    logs = log2_weights(a), log2_weights(b)
    mass_a, mass_b = tl.sum(a.to(tl.float64), 0), tl.sum(b.to(tl.float64), 0)
    metric, constant = b.to(tl.float64) / mass_b, eps * mass_a * (1 - mass_b)
    shares, unit_dual = metric.to(T), 1 / (eps * mass_a)
    spread = tl.load(spread + problem).to(tl.float64)
    tl.store(numbers + 2, spread.to(T))
    fall = spread / eps * (4 * UNIT) + _FALL
    target_scale, target_unit, target_eps = (1 / (eps / LOG2E)).to(T), (eps / LOG2E).to(T), eps.to(T)

    finite = spread < INF
    cold = _first_factor(eps, spread, tl.where(finite, most, 0)).to(T)
    factor, g = cold, tl.zeros((M,), T)
    if WARM:
        factor, g = tl.full((), 1.0, T), tl.load(start + problem * m + columns, mask=columns < m, other=0.0)
    level_steps = 0
    zeros, zero = tl.zeros((M,), T), tl.full((), 0.0, tl.float64)
    ascent = zeros, zeros, zero - INF, zero, zero > 0, tl.full((), 0, tl.int32), tl.full((), 1, tl.int32)
    history = empty_history(metric, T)
    best, found = tl.full((), INF, T), zero > 0
    step = 0
    running = finite & (steps > 0)
    while running:
        scale, unit = target_scale / factor, target_unit * factor
        eps_now = eps * factor.to(tl.float64)
        g, f, raw_f, raw_g, updated, error, attained = _alternated(
            resident, C, a_all, (a, b), logs, shares, g, eps_now, scale, unit, rho, n, m, SOFT, N, M, R, L
        )
        at_target = factor == 1.0
        tl.store(errors + step, tl.where(at_target, error, float("nan")).to(tl.float32), mask=step < checks)
        better = at_target & (error <= best)
        best, found = tl.where(better, error, best), found | better
        if better:
            _store_side(out_f, rows, n, f, raw_f)
            _store_side(out_g, columns, m, g, raw_g)
            tl.store(numbers + 1, (attained - constant).to(T))

        inverse = 1 / (target_eps * factor)
        r = tl.where(b > 0, (updated - g) * inverse, 0.0)
        dual = attained * (unit_dual / factor.to(tl.float64))
        extrapolated, ascent, history = _ascended(ascent, history, g, r, dual, fall, inverse, metric)
        following = _next_factor(factor, cold, level_steps, error, step, most, WARM)
        moved = following != factor
        ascent, history = _restarted(ascent, history, moved)
        level_steps = tl.where(moved, 0, level_steps + 1)
        g = tl.where(moved, updated, tl.where(b > 0, extrapolated, updated))
        factor = following
        step += 1
        running = (step < steps) & ((best.to(tl.float64) <= tol) == 0)

    tl.store(numbers, best)
    tl.store(passes + problem, tl.full((), 2, tl.int64) * step)
    if found == 0:
        _store_side(out_f, rows, n, tl.zeros((N,), T), tl.zeros((N,), T))
        _store_side(out_g, columns, m, zeros, zeros)
        tl.store(numbers + 1, zero.to(T))


@triton.jit(do_not_specialize=["n", "checks", "steps"])
def symmetric_kernel(
    C, a, start, spread, eps, results, passes, errors, n, checks, steps,
    rho: tl.float64, tol: tl.float64,
    WARM: tl.constexpr, SOFT: tl.constexpr, N: tl.constexpr, R: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """Solve a problem whose two sides are the same."""
    problem = tl.program_id(0).to(tl.int64)
    eps, rho = tl.load(eps + problem), tl.full((), rho, tl.float64)
    rows = tl.arange(0, N)
    C, errors, out = C + problem * n * n, errors + problem * checks, results + problem * (2 * n + 3)
    numbers = out + 2 * n
    resident = costs_of(C, 0, n, n, R, N, L)
    a = tl.load(a + problem * n + rows, mask=rows < n, other=0.0)
    T: tl.constexpr = a.dtype
    log_a = log2_weights(a)
    mass = tl.sum(a.to(tl.float64), 0)
    metric, constant = a.to(tl.float64) / mass, eps * mass * (1 - mass)
    shares = metric.to(T)
    spread = tl.load(spread + problem).to(tl.float64)
    tl.store(numbers + 2, spread.to(T))
    scale, unit, inverse = (1 / (eps / LOG2E)).to(T), (eps / LOG2E).to(T), (1 / eps).to(T)
    damping = _damping(eps, rho, T, SOFT)

    zeros = tl.zeros((N,), T)
    f = zeros
    if WARM:
        f = tl.load(start + problem * n + rows, mask=rows < n, other=0.0)
    last_f, last_r, last_error = zeros, zeros, tl.full((), INF, T)
    history = empty_history(metric, T)
    best = tl.full((), INF, T)
    averaging, found = best < 0, best < 0
    step = 0
    running = (spread < INF) & (steps > 0)
    while running:
        raw = -unit * spread_out(row_sums(resident, C, log_a + f * scale, scale, n, n, N, N, R, L))
        updated = damping * raw
        f = tl.where(a > 0, f, updated)
        error = 2 * _residual(shares, log_a, f, raw, scale, rho, SOFT)

        tl.store(errors + step, error.to(tl.float32), mask=step < checks)
        better = error <= best
        best, found = tl.where(better, error, best), found | better
        if better:
            _store_side(out, rows, n, f, raw)
            attained = _attained(a, a, damping * raw, f, eps, rho, rho, SOFT)
            tl.store(numbers + 1, (attained - constant).to(T))

        r = (updated - f) * inverse
        averaging = averaging | (error > last_error)
        history = appended(history, (f - last_f) * inverse, r - last_r, metric, _SELF_MIXING, False)
        history = counted(history, tl.where(averaging | (step == 0), 0, history[4] + 1))
        last_f, last_r, last_error = f, r, error
        f += anderson_step(history, r, metric * r.to(tl.float64), _SELF_MIXING) / inverse
        step += 1
        running = (step < steps) & ((best.to(tl.float64) <= tol) == 0)

    tl.store(numbers, best)
    tl.store(passes + problem, tl.full((), 1, tl.int64) * step)
    if found == 0:
        _store_side(out, rows, n, zeros, zeros)
        tl.store(numbers + 1, tl.full((), 0.0, T))


def solve_small(
    C: Tensor,
    a: Tensor,
    b: Tensor,
    spread: Tensor,
    eps: Tensor,
    rho: tuple[float, float],
    *,
    symmetric: bool,
    start: Tensor | None,
    tol: float,
    max_passes: int,
    checks: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve a batch of problems with costs C (B, n, m), whose spreads are (B,), and weights a (B, n) and b (B, m).

    ``eps`` (B,), float64, holds the regularisation of each problem. ``start`` is a potential g (B, m) to start from.

    Returns the results (B, k), of each problem f (n), raw_f (n), g (m), raw_g (m), the marginal error, the dual value
    and the spread of the cost, where g and raw_g are left out if the problem is symmetric; then the passes (B,), int64,
    and the errors at the first ``checks`` convergence tests (B, checks), float32, NaN above the target ε.
    """
    C, a, b = C.contiguous(), a.contiguous(), b.contiguous()
    batch, n, m = C.shape
    results = C.new_empty(batch, 2 * n + 3 if symmetric else 2 * (n + m) + 3)
    passes = torch.empty(batch, dtype=torch.int64, device=C.device)
    errors = torch.empty(batch, checks, dtype=torch.float32, device=C.device)
    outputs = results, passes, errors
    # A start that is missing is not read.
    given = (spread if start is None else start.contiguous()), spread, eps.contiguous()
    switches = start is not None, math.isfinite(rho[0])
    N, M, R, L, options = _tiling(n, m, C.dtype)
    with torch.cuda.device_of(C):
        if symmetric:
            steps = min(max_passes, MOST_STEPS)
            symmetric_kernel[(batch,)](
                C, a, *given, *outputs, n, checks, steps, rho[0], tol, *switches, N, R, L, **options
            )
        else:
            steps, most = (min(count, MOST_STEPS) for count in (max(1, max_passes // 2), max(0, max_passes // 4 - 1)))
            accelerated_kernel[(batch,)](
                C, a, b, *given, *outputs, n, m, checks, steps, most, *rho, tol, *switches, N, M, R, L, **options
            )
    return outputs


def _tiling(n: int, m: int, dtype: torch.dtype) -> tuple[int, int, int, int, dict[str, Any]]:
    """The rows and columns of the padded problem, the rows of a tile, its columns that lie side by side, and options.

    A warp takes 4 KB of a tile, up to 8 warps: so many threads may have all the registers there are. Lanes are divided
    such that each thread holds about as many rows as columns.
    """
    N, M = (max(16, triton.next_power_of_2(count)) for count in (n, m))
    R = min(N, TILE[dtype] // M)
    warps = max(1, min(8, R * M * dtype.itemsize // 4096))
    L = min(M, 1 << ((32 * warps * M // R).bit_length() // 2))
    return N, M, R, L, {"num_warps": warps, "enable_fp_fusion": True}
