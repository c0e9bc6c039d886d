"""Where a dictionary lives in its model: hook points and the model's name, from configuration and paths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_geometry.sources.layouts.config import first, lookup
from sae_geometry.sources.layouts.detect import Site

_HOOK_IN = ("metadata.hook_name", "hook_name", "hook_point", "hook_point_in", "metadata.hook_point")
_HOOK_OUT = ("metadata.hook_name_out", "hook_name_out", "hook_point_out")
_MODEL = (
    "metadata.model_name", "model_name", "tlens_model_name", "trainer.lm_name", "lm_name", "model.name", "model",
    "base_model",
)  # fmt: skip
_GEMMA_SITES = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}


@dataclass(frozen=True)
class Space:
    """Attributes:
    reads: the hook point the encoder reads from; None when unknown.
    writes: the hook point the decoder writes to, where it differs; None otherwise.
    model: the model's name; None when unknown.
    """

    reads: str | None
    writes: str | None
    model: str | None


def space_of(site: Site, config: Mapping[str, Any], where: str, outs: Sequence[int | None] = ()) -> Space:
    """The space of one dictionary.

    Args:
        site: which dictionary.
        config: the configuration beside the weights.
        where: the path of the weights file, after its repository's name if it came from one.
        outs: the outputs of a cross-layer decoder that are read; one alone is where it writes.
    """
    reads = site.hook or first(config, _HOOK_IN, str) or _from_trainer(config) or _from_path(site, where)
    writes = first(config, _HOOK_OUT, str)
    layer = site.source if site.source is not None else _layer_in(where)
    feature_in, feature_out = lookup(config, "feature_input_hook"), lookup(config, "feature_output_hook")
    if isinstance(feature_in, str) and layer is not None:
        reads = f"blocks.{layer}.{feature_in}"
        target = layer if site.source is None else outs[0] if len(outs) == 1 else None
        if isinstance(feature_out, str) and target is not None:
            writes = f"blocks.{target}.{feature_out}"
    return Space(reads, None if writes == reads else writes, first(config, _MODEL, str))


def _from_trainer(config: Mapping[str, Any]) -> str | None:
    """dictionary_learning's `submodule_name`, "resid_post_layer_8", as a hook point."""
    name, layer = lookup(config, "trainer.submodule_name"), lookup(config, "trainer.layer")
    if not isinstance(name, str):
        return None
    plain = re.fullmatch(r"(resid_pre|resid_mid|resid_post|mlp_out|attn_out)(?:_layer_(\d+))?", name)
    number = (plain[2] if plain else None) or (str(layer) if type(layer) is int else None)
    return f"blocks.{number}.hook_{plain[1]}" if plain and number is not None else name


def _from_path(site: Site, where: str) -> str | None:
    parts = where.split("/")
    layer = _layer_in(where)
    match site.layout.name:
        case "sparsify":
            return parts[-2] if len(parts) > 1 else None
        case "qwen_scope":
            return None if layer is None else f"blocks.{layer}.hook_resid_post"
        case "goodfire":
            number = re.search(r"-l(\d+)(?:\D|$)", parts[-1])
            return f"layers.{number[1]}" if number else None
        case "gemma_scope":
            kind = re.search(r"gemma-scope-[\w.]+-(?:pt|it)-(res|mlp|att)\b", where)
            return f"blocks.{layer}.{_GEMMA_SITES[kind[1]]}" if kind and layer is not None else None
        case _:
            return None


def _layer_in(where: str) -> int | None:
    numbers = re.findall(r"(?:^|/)layer_?(\d+)(?=[/._]|$)", where)
    return int(numbers[-1]) if numbers else None
