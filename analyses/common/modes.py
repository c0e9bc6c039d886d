"""Count the modes of a distribution."""

from __future__ import annotations

import numpy as np

from analyses.common.similarities import Similarities

BINS = 50
PROMINENCE = 0.1


def n_modes(curve: Similarities) -> int:
    """Count the peaks that rise above the neighboring valleys by at least a tenth of the highest peak.

    The histogram has 50 bins over 0…1 and is smoothed twice by (1, 2, 1)/4. The paper calls a figure "bimodal"; this
    rule makes that precise.
    """
    from scipy.signal import find_peaks

    counts = np.histogram(np.clip(curve.similarity[np.isfinite(curve.similarity)], 0, 1), np.linspace(0, 1, BINS + 1))[
        0
    ]
    smooth = np.pad(counts.astype(np.float64), 3)
    for _ in range(2):
        smooth = np.convolve(smooth, (0.25, 0.5, 0.25), mode="same")
    return len(find_peaks(smooth, prominence=PROMINENCE * smooth.max())[0])
