"""Nulls that were fitted are kept for a while: a dictionary compared with others is fitted once while there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np

from sae_geometry.nulls.matched import MatchedNull, fit_matched_null

_MOST_BYTES = 256 << 20
_KEPT: OrderedDict[Hashable, MatchedNull] = OrderedDict()
_LOCK = threading.Lock()


def remembered_null(key: Hashable, directions: np.ndarray) -> MatchedNull:
    """`fit_matched_null(directions)`, or what it gave before for this key; those last asked for are kept, up to 256 MB.

    Args:
        key: what the directions are known by: others must have another.
        directions: unit rows [m, d].

    Raises:
        ValueError: no rows.

    Example:
        >>> import numpy as np
        >>> from sae_geometry.nulls.cache import remembered_null
        >>> remembered_null("axes", np.eye(8)) is remembered_null("axes", np.eye(8))
        True
    """
    with _LOCK:
        if key in _KEPT:
            _KEPT.move_to_end(key)
            return _KEPT[key]
    null = fit_matched_null(directions)
    with _LOCK:
        _KEPT[key] = null
        while len(_KEPT) > 1 and sum(map(_bytes, _KEPT.values())) > _MOST_BYTES:
            _KEPT.popitem(last=False)
    return null


def _bytes(null: MatchedNull) -> int:
    """Its axes, the tables that it makes when it is used, and the rows that it was fitted to where it keeps them."""
    rows = 0 if null.uneven is None else null.uneven.rows.nbytes
    return null.basis.nbytes + 256 * null.mean.nbytes + rows
