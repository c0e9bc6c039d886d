"""The tail of the cosine to a random Gaussian direction, one number at a time: compiled by numba.

Let g be Gaussian with independent coordinates of mean μ_k and variance λ_k, x a unit vector with coordinates α_k,
u = ⟨x, g⟩ and ρ = |g|². For w > −1/(2 max λ), with D_k = 1 + 2wλ_k,

    E[e^{−wρ}; u] = e^{K₀(w)} · N(u; ν(w), v(w)),
    K₀ = Σ −½ ln D_k − w μ_k²/D_k,     ν = Σ α_k μ_k / D_k,     v = Σ α_k² λ_k / D_k,

so the cumulant generating function of −ρ given u is known, and

    P(cos(x, g) ≥ t) = ∫₀^∞ N(u; ν(0), v(0)) · P(ρ ≤ u²/t² | u) du     (t > 0).

The inner probability is Lugannani and Rice's saddlepoint approximation in Barndorff-Nielsen's form, the outer integral
the trapezoid rule about its peak. ν, v and K₀ come as tables over τ with w = w₀(e^τ − 1), read by cubic Hermite
interpolation, ν′ and v′ included.
"""

from __future__ import annotations

import math

import numpy as np

from sae_geometry.kernels.loops.jit import compiled

_MOST_NODES = 2000  # of the trapezoid rule, on either side of the peak
_LOG_2PI = math.log(2 * math.pi)


@compiled()
def _log_upper_normal(r):  # type: ignore[no-untyped-def]
    """ln P(Z ≥ r) for a standard normal Z."""
    if r < 25.0:
        return math.log(0.5 * math.erfc(r / math.sqrt(2.0)))
    return -0.5 * r * r - 0.5 * _LOG_2PI - math.log(r) + math.log1p(-1.0 / (r * r) + 3.0 / r**4)


@compiled()
def _hermite(f0, f1, d0, d1, s):  # type: ignore[no-untyped-def]
    """Value and derivative in s of the cubic with values f and derivatives d at s = 0 and s = 1."""
    a = 2 * (f0 - f1) + d0 + d1
    b = 3 * (f1 - f0) - 2 * d0 - d1
    return ((a * s + b) * s + d0) * s + f0, (3 * a * s + 2 * b) * s + d0


@compiled()
def _slope(g, s, u, grid, k0, mean, var):  # type: ignore[no-untyped-def]
    """w, K(w | u) and K′(w | u) at s ∈ [0, 1] between nodes g and g + 1.

    grid [3, G]: τ, w, and dw/ds at the nodes; k0, mean and var [2 or 3, G]: K₀, K₀′ (and K₀″); ν, ν′; v, v′.
    """
    h = grid[0, g + 1] - grid[0, g]
    rise0, rise1 = grid[2, g], grid[2, g + 1]
    rise = rise0 * math.exp(s * h)
    w = grid[1, g] + (rise - rise0) / h
    k, _ = _hermite(k0[0, g], k0[0, g + 1], k0[1, g] * rise0, k0[1, g + 1] * rise1, s)
    k1, _ = _hermite(k0[1, g], k0[1, g + 1], k0[2, g] * rise0, k0[2, g + 1] * rise1, s)
    nu, nu1 = _hermite(mean[0, g], mean[0, g + 1], mean[1, g] * rise0, mean[1, g + 1] * rise1, s)
    v, v1 = _hermite(var[0, g], var[0, g + 1], var[1, g] * rise0, var[1, g + 1] * rise1, s)
    nu1, v1 = nu1 / rise, v1 / rise
    off = u - nu
    value = k - 0.5 * math.log(v) - 0.5 * off * off / v
    slope = k1 - 0.5 * v1 / v + off * nu1 / v + 0.5 * off * off * v1 / (v * v)
    return w, value, slope


@compiled()
def _slope_at(g, u, k0, mean, var):  # type: ignore[no-untyped-def]
    """K′(w | u) at node g."""
    off, v = u - mean[0, g], var[0, g]
    return k0[1, g] + (off * mean[1, g] + 0.5 * (off * off / v - 1.0) * var[1, g]) / v


@compiled()
def _log_integrand(u, t, grid, zero, k0, mean, var):  # type: ignore[no-untyped-def]
    """ln of N(u; ν(0), v(0)) · P(ρ ≤ u²/t² | u). `zero` is the index of τ = 0."""
    nu0, v0 = mean[0, zero], var[0, zero]
    at_zero = -0.5 * math.log(v0) - 0.5 * (u - nu0) ** 2 / v0
    log_density = at_zero - 0.5 * _LOG_2PI
    most = u * u / (t * t)
    low, high = 0, grid.shape[1] - 1
    f_left, f_right = _slope_at(low, u, k0, mean, var) + most, _slope_at(high, u, k0, mean, var) + most
    if f_left >= 0:
        return log_density  # ρ is smaller almost surely
    if f_right <= 0:
        return -np.inf
    while high - low > 1:
        middle = (low + high) // 2
        f = _slope_at(middle, u, k0, mean, var) + most
        if f < 0:
            low, f_left = middle, f
        else:
            high, f_right = middle, f
    left, right = 0.0, 1.0
    s = 0.5
    for _ in range(40):  # regula falsi, halving the stale side (Illinois)
        s = (left * f_right - right * f_left) / (f_right - f_left)
        f = _slope(low, s, u, grid, k0, mean, var)[2] + most
        if abs(f) <= 1e-7 * most or right - left < 1e-9:
            break
        if f * f_right > 0:
            right, f_right = s, f
            f_left *= 0.5
        else:
            left, f_left = s, f
            f_right *= 0.5
    w, value, _ = _slope(low, s, u, grid, k0, mean, var)
    step = 1e-4
    w_up, _, slope_up = _slope(low, s + step, u, grid, k0, mean, var)
    w_down, _, slope_down = _slope(low, s - step, u, grid, k0, mean, var)
    curvature = (slope_up - slope_down) / (w_up - w_down)
    r = math.sqrt(max(0.0, 2.0 * (-w * most - (value - at_zero))))
    if w < 0:
        r = -r
    if abs(r) > 0.05 and curvature > 0:
        r += math.log(w * math.sqrt(curvature) / r) / r
    return log_density + _log_upper_normal(r)


@compiled()
def _log_tail(t, grid, zero, k0, mean, var):  # type: ignore[no-untyped-def]
    """ln P(cos ≥ t) for t > 0: ternary search for the peak in ln u, then the trapezoid rule about it."""
    low, high = math.log(0.01 * t), math.log(4.0 * t)
    ratio = 0.5 * (math.sqrt(5.0) - 1.0)
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    fa = a + _log_integrand(math.exp(a), t, grid, zero, k0, mean, var)
    fb = b + _log_integrand(math.exp(b), t, grid, zero, k0, mean, var)
    for _ in range(16):
        if fa < fb:
            low, a, fa = a, b, fb
            b = low + ratio * (high - low)
            fb = b + _log_integrand(math.exp(b), t, grid, zero, k0, mean, var)
        else:
            high, b, fb = b, a, fa
            a = high - ratio * (high - low)
            fa = a + _log_integrand(math.exp(a), t, grid, zero, k0, mean, var)
    peak = 0.5 * (low + high)
    top = peak + _log_integrand(math.exp(peak), t, grid, zero, k0, mean, var)
    if top == -np.inf:
        return top
    width = 1.0  # on the steeper side, to where the integrand has fallen by e^-2: two standard deviations of a bell
    for _ in range(60):
        up = peak + width + _log_integrand(math.exp(peak + width), t, grid, zero, k0, mean, var)
        down = peak - width + _log_integrand(math.exp(peak - width), t, grid, zero, k0, mean, var)
        if min(up, down) > top - 2.0:
            break
        width *= 0.75
    spacing = 0.35 * width
    total = 1.0
    for side in (-1.0, 1.0):
        for n in range(1, _MOST_NODES):
            z = peak + side * n * spacing
            term = math.exp(z + _log_integrand(math.exp(z), t, grid, zero, k0, mean, var) - top)
            total += term
            if term < 1e-6:
                break
    return min(0.0, top + math.log(total * spacing))


@compiled()
def log_tails_loop(t, grid, zero, k0, mean, var, out):  # type: ignore[no-untyped-def]
    """out[i, j] = ln P(cos(x_i, g) ≥ t_ij), any t.

    Args:
        t: [n, T].
        grid: [3, G]: τ (evenly spaced), w = w₀(e^τ − 1), and dw/dτ times the spacing; `zero` is the index of τ = 0.
        k0: [3, G]: K₀, K₀′, K₀″ in w.
        mean, var: [n, 2, G]: ν, ν′ and v, v′ of each latent.
    """
    turned = np.empty_like(mean[0])
    for i in range(t.shape[0]):
        turned[:] = -mean[i]
        for j in range(t.shape[1]):
            if t[i, j] > 1e-9:
                out[i, j] = _log_tail(t[i, j], grid, zero, k0, mean[i], var[i])
            elif t[i, j] < -1e-9:  # 1 − P(cos(−x, g) ≥ −t)
                other = _log_tail(-t[i, j], grid, zero, k0, turned, var[i])
                out[i, j] = math.log1p(-min(math.exp(other), 1.0 - 1e-16))
            else:
                out[i, j] = _log_upper_normal(-mean[i, 0, zero] / math.sqrt(var[i, 0, zero]))
