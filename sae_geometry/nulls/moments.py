"""A Gaussian whose *directions* have a given mean and second moment, axis by axis."""

from __future__ import annotations

import numpy as np

_ROUNDS = 30


def matching_moments(along: np.ndarray, second: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of g with E[g_k/|g|] = along_k and E[g_k²/|g|²] = second_k, by multiplicative updates.

    1/ρ = ∫ e^{−wρ} dw and 1/√ρ = ∫ e^{−wρ} (πw)^{−½} dw over w > 0, under which the coordinates stay independent
    Gaussians: E[g_k²/ρ] = ∫ e^{K₀} (λ_k/D_k + μ_k²/D_k²) dw, E[g_k/√ρ] = ∫ e^{K₀} (πw)^{−½} μ_k/D_k dw.

    Args:
        along: E[g_k/|g|], [r].
        second: E[g_k²/|g|²], [r].
        count: how many axes each of these stands for, [r].
    """
    mean, variance = along.copy(), np.maximum(second - along**2, 0.0)
    total = ((mean**2 + variance) * count).sum()
    z = np.linspace(-14.0, 9.0, 240)  # ln w, about the scale of 1/E[ρ]
    for _ in range(_ROUNDS):
        scale = ((mean**2 + variance) * count).sum()
        mean, variance = mean * np.sqrt(total / scale), variance * (total / scale)
        w = np.exp(z) / total
        weight = 1 / (1 + 2 * w * variance[:, None])
        log_m = (count[:, None] * (0.5 * np.log(weight) - w * mean[:, None] ** 2 * weight)).sum(axis=0)
        mass = np.exp(log_m) * w * (z[1] - z[0])
        got_second = (variance[:, None] * weight + mean[:, None] ** 2 * weight**2) @ mass
        got_first = (mean[:, None] * weight) @ (mass / np.sqrt(np.pi * w))
        with np.errstate(divide="ignore", invalid="ignore"):
            grown = np.where(got_second > 0, second / got_second, 1.0)
            turned = np.where(got_first != 0, along / got_first, 1.0)
        new_mean = mean * np.clip(turned, 0.5, 2.0)
        power = (variance + mean**2) * np.clip(grown, 0.5, 2.0)
        new_variance = np.maximum(power - new_mean**2, 0.05 * variance)
        change = np.abs(new_variance - variance).max() / max(variance.max(), 1e-300)
        mean, variance = new_mean, new_variance
        if change < 1e-6:
            break
    return mean, variance
