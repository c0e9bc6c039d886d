"""Whether two dictionaries live in the same space, so that a cosine between their directions means something."""

from __future__ import annotations

from sae_geometry.dictionary import Dictionary

ALLOWED = "(allowed by the caller)"  # how a caveat ends that somebody chose to live with
_ALIASES = {"gpt2-small": "gpt2"}


def require_same_space(a: Dictionary, b: Dictionary, allow_mismatch: bool = False) -> tuple[str, ...]:
    """What a reader must know of the spaces of `a` and `b`: nothing, or one phrase for each thing unknown or allowed.

    Args:
        a, b: the dictionaries.
        allow_mismatch: go on although model or hook point differ; the difference is then among the phrases returned.

    Raises:
        ValueError: different widths (always), or a different model or hook point without `allow_mismatch`.
    """
    if a.d_in != b.d_in:
        raise ValueError(
            f"{a.name!r} lives in {a.d_in:,} dimensions and {b.name!r} in {b.d_in:,}: cosines between them do not "
            "exist; compare dictionaries of the same model and hook point"
        )
    caveats = []
    for what, left, right in (
        ("model", model_key(a.model), model_key(b.model)),
        ("hook point", a.hook_point, b.hook_point),
    ):
        if left is None or right is None:
            missing = " and ".join(d.name for d, value in ((a, left), (b, right)) if value is None)
            caveats.append(f"{what} of {missing} unknown: taken to be the same")
        elif left != right:
            text = f"different {what}: {a.name!r} has {left}, {b.name!r} has {right}"
            if not allow_mismatch:
                raise ValueError(
                    f"{text}; a cosine between them has no meaning unless one was trained from the other's basis: "
                    "pass allow_mismatch=True (--allow-mismatch) to go on all the same"
                )
            caveats.append(f"{text} {ALLOWED}")
    return tuple(caveats)


def model_key(model: str | None) -> str | None:
    """A model's name without its owner and case, and one name for models known under two."""
    if model is None:
        return None
    key = model.rsplit("/", 1)[-1].casefold()
    return _ALIASES.get(key, key)
