"""Records of W&B training runs: configuration, summary, and the metrics used to pair runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sae_geometry.sources.checksums import read_sealed, write_sealed
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.layouts.config import lookup
from sae_geometry.sources.plain import is_plain, parse_json

Kind = Literal["local", "e2e", "e2e+ds"]
Metric = Literal["l0", "ce_increase", "explained_variance", "alive"]

RUN_RECORD_NAME = "wandb_run.json"
_ALIVE_IDS = ("sparsity/alive_dict_elements_indices_final/", "sparsity/alive_dict_elements_indices/")
_ALIVE_COUNT = ("sparsity/alive_dict_elements_final/", "sparsity/alive_dict_elements/")
METRICS: dict[Metric, tuple[str, ...]] = {  # The keys of the final evaluation come first.
    "l0": ("sparsity/eval/L_0/{}", "sparsity/L_0/{}"),
    "ce_increase": ("performance/eval/difference_ce_loss", "performance/difference_ce_loss"),  # `metric` negates it.
    "explained_variance": ("loss/eval/out_to_in/explained_variance/{}", "loss/out_to_in/explained_variance/{}"),
    "alive": tuple(f"{prefix}{{}}" for prefix in _ALIVE_COUNT),
}  # fmt: skip


@dataclass(frozen=True)
class RunRecord:
    """Configuration, summary and file names of a W&B run.

    Attributes:
        summary: final metrics, under flat keys like "sparsity/eval/L_0/blocks.6.hook_resid_pre".
        weights: names of the files that look like weights; empty until listed.
        sums: checksum of each downloaded file, by name.
    """

    path: str
    name: str
    state: str
    config: Mapping[str, Any] = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)
    weights: tuple[str, ...] = ()
    sums: Mapping[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def hooks(self) -> tuple[str, ...]:
        """The hook points of the run's SAEs."""
        positions = lookup(self.config, "saes.sae_positions")
        listed = [positions] if isinstance(positions, str) else positions if isinstance(positions, list) else []
        if not listed:
            listed = [k.removeprefix(p) for k in self.summary for p in _ALIVE_COUNT if k.startswith(p)]
        return tuple(dict.fromkeys(str(h) for h in listed))

    @cached_property
    def kind(self) -> Kind | None:
        """The training loss, "local", "e2e" or "e2e+ds", inferred from its coefficients; None if unknown."""
        loss = self.config.get("loss")
        if not isinstance(loss, Mapping):
            return None
        if not _positive(lookup(loss, "logits_kl.coeff")):
            return "local"
        return "e2e+ds" if _positive(lookup(loss, "in_to_orig.total_coeff")) else "e2e"

    @cached_property
    def alive_ids(self) -> dict[str, Sequence[int]]:
        """Ids of the latents that fire, by hook point; an empty dict if the summary lists no ids."""
        found: dict[str, Sequence[int]] = {}
        for prefix in _ALIVE_IDS:
            for key, ids in self.summary.items():
                if key.startswith(prefix) and isinstance(ids, list):
                    if any(type(i) is not int or not 0 <= i < 1 << 48 for i in ids):
                        raise SourceError(f"the alive latents of run {self.path} are not a list of latent ids")
                    found.setdefault(key.removeprefix(prefix), ids)
        return found

    def metric(self, name: Metric, hook: str) -> float | None:
        """Return a metric of the run at a hook point; None if the summary does not contain it.

        l0 is the mean number of active latents per token; ce_increase is the cross-entropy loss with the SAE spliced in
        minus the loss without it, in nats; explained_variance is a share; alive is a count. Values of the final
        evaluation take precedence over values from training.
        """
        values = (self.summary.get(key.format(hook)) for key in METRICS[name])
        numbers = (v for v in values if isinstance(v, int | float) and not isinstance(v, bool) and is_plain(v))
        found = next((float(v) for v in numbers if math.isfinite(v)), None)
        if found is None and name == "alive" and hook in self.alive_ids:
            return float(len(self.alive_ids[hook]))
        return -found if found is not None and name == "ce_increase" else found

    @property
    def seed(self) -> int | None:
        """The random seed of the training run; None if it is not recorded."""
        seed = self.config.get("seed")
        return seed if type(seed) is int and is_plain(seed) else None

    @property
    def of_bundle(self) -> dict[str, Any]:
        """The `Bundle` fields that all checkpoints of the run share, as keyword arguments."""
        facts: dict[str, Any] = {"run": self.path, "run_name": self.name, "kind": self.kind, "seed": self.seed}
        if len(self.hooks) == 1:
            facts |= {name: self.metric(name, self.hooks[0]) for name in METRICS}
        return {
            "config": self.config,
            "alive_ids": self.alive_ids,
            "alive_source": f"the summary of W&B run {self.path}",
            "metadata": {k: v for k, v in facts.items() if v is not None and v != ""},
        }


@dataclass(frozen=True)
class RunInfo:
    """An SAE of a training run, with its metrics.

    Attributes:
        address: "wandb:entity/project/run", with ::hook if the run has several SAEs.
        state: "finished", "running", "crashed", …
        kind: training loss: "local", "e2e" or "e2e+ds"; None if unknown.
        l0: mean number of active latents per token.
        ce_increase: cross-entropy loss with the SAE minus without, in nats.
        explained_variance: share of the variance of the activations that is explained.
        alive: number of latents that fire.
    """

    address: str
    name: str
    state: str
    kind: Kind | None
    hook_point: str | None
    layer: int | None
    l0: float | None
    ce_increase: float | None
    explained_variance: float | None
    alive: int | None
    seed: int | None


def as_table(raw: Any) -> dict[str, Any]:
    """Return a JSON object as a dict, from text or already parsed; an empty dict for None or empty text."""
    if raw is None or raw == "":
        return {}
    try:
        table = parse_json(raw) if isinstance(raw, str) else raw
    except ValueError as error:
        raise SourceError("W&B sent a configuration or summary that is not JSON") from error
    if not isinstance(table, dict):
        raise SourceError("W&B sent a configuration or summary that is not a JSON object")
    return table


def write_record(record: RunRecord, path: Path) -> None:
    """Write a run's record to a file next to its weights."""
    names = ("path", "state", "config", "summary", "weights", "sums")
    write_sealed(path, {"displayName": record.name} | {name: getattr(record, name) for name in names})


def read_record(path: Path) -> RunRecord | None:
    """Read a run's record from a file next to its weights; return None if the file is not readable."""
    try:
        table = read_sealed(path) or {}
        config, summary = table.get("config"), table.get("summary")
        if not isinstance(config, dict) or not isinstance(summary, dict):
            return None
        return RunRecord(
            str(table.get("path", path.parent.name)), str(table.get("displayName", "")), str(table.get("state", "")),
            config, summary, tuple(str(n) for n in table.get("weights") or ()),
            {name: str(value) for name, value in (table.get("sums") or {}).items()},
        )  # fmt: skip
    except (TypeError, AttributeError):
        return None


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
