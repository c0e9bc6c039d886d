"""Checks that two dictionaries share a space, since cosines between different spaces have no meaning."""

from __future__ import annotations

import re
from dataclasses import replace

from sae_geometry.dictionary import Dictionary
from sae_geometry.matching import On
from sae_geometry.sources.layouts.places import canonical_model, canonical_place

_STREAM = re.compile(r"((?:[\w]+\.)*?)blocks\.\d+\.hook_resid_(?:pre|mid|post)")
TAKEN_AS_SAME = "unknown: taken to be the same"  # suffix of a caveat on a missing model or hook point
ALLOWED = "(allowed by the caller)"  # suffix of a caveat that the caller allowed


def require_same_space(
    a: Dictionary, b: Dictionary, allow_mismatch: bool = False, *, on: On = "decoder"
) -> tuple[str, ...]:
    """Check that `a` and `b` share a space, and return one caveat per unknown or allowed mismatch.

    Args:
        allow_mismatch: whether to allow different models or hook points, which are then among the caveats.
        on: directions to compare; the encoder and decoder of a transcoder live in different spaces.

    Raises:
        ValueError: the widths differ, or (without `allow_mismatch`) the models or hook points do.
    """
    if a.d_in != b.d_in:
        raise ValueError(
            f"{a.name!r} has {a.d_in:,} dimensions and {b.name!r} has {b.d_in:,}, so there are no cosines between "
            "them; compare dictionaries of the same model and hook point"
        )
    caveats = []
    checks = [("model", model_key, lambda d: d.model), ("hook point", place_key, _decoder_hook)]
    if on != "decoder" and (_is_transcoder(a) or _is_transcoder(b)):
        checks.append(("hook point of the encoder", encoder_place_key, encoder_hook))
    for what, key, said in checks:
        left, right = key(a), key(b)
        if left is None or right is None:
            missing = " and ".join(d.name for d, value in ((a, left), (b, right)) if value is None)
            caveats.append(f"{what} of {missing} {TAKEN_AS_SAME}")
        elif left != right:
            text = f"different {what}: {a.name!r} has {said(a)}, {b.name!r} has {said(b)}"
            if not allow_mismatch:
                raise ValueError(
                    f"{text}; a cosine between them has no meaning unless one dictionary was trained from the other's "
                    "basis: pass allow_mismatch=True (--allow-mismatch) to continue anyway"
                )
            caveats.append(f"{text} {ALLOWED}")
    if _is_transcoder(a) != _is_transcoder(b):
        one, other = (a, b) if _is_transcoder(a) else (b, a)
        caveats.append(f"{one.name!r} is a transcoder and {other.name!r} is not: only their decoders share a space")
    return tuple(caveats)


def require_same_stream(a: Dictionary, b: Dictionary, allow_mismatch: bool = False) -> tuple[str, ...]:
    """Check that `a` and `b` share a space, or the residual stream of the same model at any two layers.

    Return values and errors are those of `require_same_space`.
    """
    return require_same_space(_in_the_stream(a), _in_the_stream(b), allow_mismatch)


def _in_the_stream(d: Dictionary) -> Dictionary:
    """Return `d` without the layer of its hook point, if the hook point is in the residual stream."""
    found = None if d.hook_point is None else _STREAM.fullmatch(place_key(d) or "")
    return d if found is None else replace(d, hook_point=f"{found[1]}the residual stream")


def model_key(d: Dictionary) -> str | None:
    """Return the canonical name of a dictionary's model; None if it is unknown."""
    return canonical_model(d.model)


def place_key(d: Dictionary) -> str | None:
    """Return the canonical name of a dictionary's decoder space; None if it is unknown."""
    return None if d.hook_point is None else canonical_place(d.hook_point, d.model)


def encoder_place_key(d: Dictionary) -> str | None:
    """Return the canonical name of a dictionary's encoder space; None if it is unknown."""
    hook = encoder_hook(d)
    return None if hook is None else canonical_place(hook, d.model)


def encoder_hook(d: Dictionary) -> str | None:
    """Return the hook point that the encoder reads, which for a transcoder differs from the decoder's."""
    return d.metadata.get("hook_point_in") if _is_transcoder(d) else d.hook_point


def _is_transcoder(d: Dictionary) -> bool:
    return bool(d.metadata.get("transcoder"))


def _decoder_hook(d: Dictionary) -> str | None:
    return f"{d.hook_point} (a transcoder's output)" if _is_transcoder(d) else d.hook_point
