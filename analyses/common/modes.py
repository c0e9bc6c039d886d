"""How many modes a distribution has, by a rule that is stated."""

from __future__ import annotations

import numpy as np

from analyses.common.similarities import Similarities

BINS = 50
PROMINENCE = 0.1


def n_modes(curve: Similarities) -> int:
    """Count the peaks of the histogram over 0…1 in 50 bins, smoothed (1, 2, 1)/4 twice, that stand out of the valleys
    next to them by at least a tenth of the highest.

    The paper says "bimodal" of a picture; this is our rule for the same picture.
    """
    from scipy.signal import find_peaks

    counts = np.histogram(np.clip(curve.similarity[np.isfinite(curve.similarity)], 0, 1), np.linspace(0, 1, BINS + 1))[
        0
    ]
    smooth = np.pad(counts.astype(np.float64), 3)
    for _ in range(2):
        smooth = np.convolve(smooth, (0.25, 0.5, 0.25), mode="same")
    return len(find_peaks(smooth, prominence=PROMINENCE * smooth.max())[0])
