"""What a training run says of itself: configuration, summary, and the numbers that runs are matched by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.layouts.config import lookup

Kind = Literal["local", "e2e", "e2e+ds"]

RUN_RECORD_NAME = "wandb_run.json"
_ALIVE_IDS = ("sparsity/alive_dict_elements_indices_final/", "sparsity/alive_dict_elements_indices/")
_ALIVE_COUNT = ("sparsity/alive_dict_elements_final/", "sparsity/alive_dict_elements/")
_MAX_RECORD_BYTES = 64 << 20


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        path: "entity/project/run".
        name: the name people gave it.
        state: "finished", "running", "crashed", …
        config: what it was trained with, as a nested table.
        summary: its last metrics, under flat keys like "sparsity/eval/L_0/blocks.6.hook_resid_pre".
        weights: names of its files that look like weights; empty when they were not listed.
    """

    path: str
    name: str
    state: str
    config: Mapping[str, Any] = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)
    weights: tuple[str, ...] = ()

    @cached_property
    def hooks(self) -> tuple[str, ...]:
        """The hook points of its SAEs."""
        positions = lookup(self.config, "saes.sae_positions")
        listed = [positions] if isinstance(positions, str) else positions if isinstance(positions, list) else []
        if not listed:
            listed = [k.removeprefix(p) for k in self.summary for p in _ALIVE_COUNT if k.startswith(p)]
        return tuple(dict.fromkeys(str(h) for h in listed))

    @cached_property
    def kind(self) -> Kind | None:
        """Local, end to end, or end to end with reconstruction downstream, by the coefficients of its loss."""
        loss = self.config.get("loss")
        if not isinstance(loss, Mapping):
            return None
        if not _positive(lookup(loss, "logits_kl.coeff")):
            return "local"
        return "e2e+ds" if _positive(lookup(loss, "in_to_orig.total_coeff")) else "e2e"

    @cached_property
    def alive_ids(self) -> dict[str, Sequence[int]]:
        """Ids of the latents that fire, by hook point, where the summary lists them."""
        found: dict[str, Sequence[int]] = {}
        for prefix in _ALIVE_IDS:
            for key, ids in self.summary.items():
                if key.startswith(prefix) and isinstance(ids, list):
                    if any(type(i) is not int or i < 0 for i in ids):
                        raise SourceError(f"the alive latents of run {self.path} are not a list of whole numbers")
                    found.setdefault(key.removeprefix(prefix), ids)
        return found

    @property
    def alive_source(self) -> str:
        """Where `alive_ids` come from, in words."""
        return f"the summary of W&B run {self.path}"

    def metric(self, name: Literal["l0", "ce_increase", "explained_variance", "alive"], hook: str) -> float | None:
        """One number of the run at one hook point; None where the summary has none.

        l0 is the mean number of latents that fire on a token; ce_increase is the cross-entropy loss with the SAE
        spliced in minus that without, in nats; explained_variance is a share; alive a count. Numbers of the final
        evaluation go before those of training.
        """
        match name:
            case "l0":
                return self._number((f"sparsity/eval/L_0/{hook}", f"sparsity/L_0/{hook}"))
            case "ce_increase":
                difference = self._number(("performance/eval/difference_ce_loss", "performance/difference_ce_loss"))
                return None if difference is None else -difference
            case "explained_variance":
                stem = "out_to_in/explained_variance"
                return self._number((f"loss/eval/{stem}/{hook}", f"loss/{stem}/{hook}"))
            case "alive":
                count = self._number(tuple(f"{prefix}{hook}" for prefix in _ALIVE_COUNT))
                return float(len(self.alive_ids[hook])) if count is None and hook in self.alive_ids else count

    @property
    def seed(self) -> int | None:
        """The seed it was trained with; None where not recorded."""
        seed = self.config.get("seed")
        return seed if type(seed) is int else None

    @property
    def metadata(self) -> dict[str, Any]:
        """The plain facts that go with a dictionary of this run."""
        facts: dict[str, Any] = {"run": self.path, "run_name": self.name, "kind": self.kind, "seed": self.seed}
        if len(self.hooks) == 1:
            for name in ("l0", "ce_increase", "explained_variance", "alive"):
                facts[name] = self.metric(name, self.hooks[0])
        return {k: v for k, v in facts.items() if v is not None and v != ""}

    def _number(self, keys: Sequence[str]) -> float | None:
        values = (self.summary.get(k) for k in keys)
        return next((float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)), None)


def plain_config(raw: Any) -> dict[str, Any]:
    """A run's configuration from W&B's JSON: `{"seed": {"value": 0}, "_wandb": …}` becomes `{"seed": 0}`."""
    table = as_table(raw)
    values = {k: v["value"] if isinstance(v, dict) and "value" in v else v for k, v in table.items()}
    return {k: v for k, v in values.items() if k not in ("_wandb", "wandb_version")}


def as_table(raw: Any) -> dict[str, Any]:
    """A JSON table given as text, as a table, or not at all.

    Raises:
        SourceError: anything else.
    """
    if raw is None or raw == "":
        return {}
    try:
        table = json.loads(raw) if isinstance(raw, str) else raw
    except (ValueError, RecursionError) as error:
        raise SourceError("W&B answered with a configuration or summary that is not JSON") from error
    if not isinstance(table, dict):
        raise SourceError("W&B answered with a configuration or summary that is not a table")
    return table


def write_record(record: RunRecord) -> str:
    """The record as JSON text, to lie beside the weights."""
    return json.dumps(
        {
            "path": record.path,
            "displayName": record.name,
            "state": record.state,
            "config": record.config,
            "summary": record.summary,
            "weights": record.weights,
        }
    )


def read_record(path: Path) -> RunRecord | None:
    """The record that lies beside weights; None if it cannot be read."""
    try:
        if path.stat().st_size > _MAX_RECORD_BYTES:
            return None
        table = json.loads(path.read_text(encoding="utf-8"))
        config, summary = table["config"], table["summary"]
        if not isinstance(config, dict) or not isinstance(summary, dict):
            return None
        return RunRecord(
            str(table.get("path", path.parent.name)), str(table.get("displayName", "")), str(table.get("state", "")),
            config, summary, tuple(str(n) for n in table.get("weights") or ()),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError):
        return None


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
