"""Result of following features through layers: edges, chains, fates, and their counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sae_geometry.comparisons.chain_labels import ChainLabels, chain_labels
from sae_geometry.comparisons.flow_step import Step
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import aligned, counted, ends, known_mean
from sae_geometry.pairwise.grouping import layer_of
from sae_geometry.pairwise.inputs import describe_input
from sae_geometry.pairwise.label_columns import positions
from sae_geometry.pairwise.mapping import unmapped
from sae_geometry.results import methods
from sae_geometry.results.answer import Answer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BASIS = "layers share a basis, so cosines are defined; norms grow and meaning drifts"


@dataclass(frozen=True, eq=False, repr=False)
class Flow(Answer):
    """Features followed through the layers of one model.

    Attributes:
        layers: the dictionaries, first layer first.
        steps: the edges between consecutive layers.
        on: "writes" (decoder with decoder) or "reads" (decoder with the next encoder).
        threshold: minimum cosine of an edge.
        false_discovery_rate: false discovery rate per step and direction.
        fold: whether norms were multiplied by the latents' thresholds.
        caveats: warnings to show with the result.
    """

    layers: tuple[Dictionary, ...]
    steps: tuple[Step, ...]
    on: str
    threshold: float
    false_discovery_rate: float
    fold: bool
    caveats: tuple[str, ...]

    @property
    def dictionaries(self) -> tuple[Dictionary, ...]:
        """Return the dictionaries of the layers."""
        return self.layers

    @property
    def method(self) -> str:
        how = methods.measure("decoder", True)
        if self.on == "reads":
            how = "the cosine of a layer's unit decoder directions with the next layer's unit encoder directions"
        after = "the turned next layer"
        decoys = f"the nearest latent of {after}"
        if self.on != "reads":
            decoys = f"the nearest other latent of its own layer and the nearest of {after}"
        folded = " Decoder norms were multiplied by the latents' thresholds." if self.fold else ""
        named = [f"{s.map['map']!r} (sha256 {s.map['map_sha256'][:16]})" for s in self.steps if s.map is not None]
        mapped = (
            f" Before each step, the earlier layer was mapped and renormalized (in order: {', '.join(named)}); "
            "cosines and significance refer to the mapped directions."
            if named
            else ""
        )
        return (
            f"We linked the latents of {len(self.layers)} consecutive layers by {how}: each to the nearest "
            "latent in the next layer, the nearest in the previous layer, and its one-to-one partner. "
            f"{methods.matched(self.steps[0].method)} An edge has a cosine of at least {self.threshold:g} and is "
            f"significant. {methods.significant(decoys, self.false_discovery_rate)} {methods.EXACT}{folded}{mapped}"
        )

    def _audit(self) -> None:
        """Return None, since layers always differ in the properties that a confound audit checks."""

    @cached_property
    def paths(self) -> np.ndarray:
        """Return the row of each chain's latent per layer, int64 [chains, layers]; −1 where the chain is absent."""
        n_chains = self.layers[0].n_latents
        made = [np.arange(n_chains)]
        for step in self.steps:
            chain = np.where(step.origin >= 0, made[-1][step.origin], -1)
            new = np.flatnonzero(chain < 0)
            chain[new] = n_chains + np.arange(len(new))
            n_chains += len(new)
            made.append(chain)
        out = np.full((n_chains, len(self.layers)), -1)
        for at, chain in enumerate(made):
            out[chain, at] = np.arange(len(chain))
        return out

    @cached_property
    def survivors(self) -> np.ndarray:
        """Return the number of chains that start at layer i and are present at layer j, int64 [layers, layers]."""
        starts = (self.paths >= 0).argmax(axis=1)
        rows = [(self.paths[starts == at] >= 0).sum(axis=0) for at in range(len(self.layers))]
        return np.array(rows)

    def edges(self) -> pd.DataFrame:
        """Return one row per edge: step, run and latent at both ends, cosine, q_value, kind, norm_ratio.

        kind is "continues", "splits" (from the nearest in the previous layer) or "merges" (to the nearest in the next).
        norm_ratio is the later decoder norm divided by the earlier. With a linear map, plain_cosine is the cosine
        before the map. With folded thresholds, folded_mse is the mean squared difference between the two decoder rows.
        """
        frames = []
        for at, step in enumerate(self.steps):
            i = np.flatnonzero(step.one_to_one >= 0)
            parts = [(i, step.one_to_one[i], step.one_to_one_cosine[i], step.one_to_one_q[i], "continues")]
            j = np.flatnonzero((step.backward >= 0) & (step.backward != step.origin))
            parts.append((step.backward[j], j, step.backward_cosine[j], step.backward_q[j], "splits"))
            i = np.flatnonzero((step.forward >= 0) & (step.forward != step.one_to_one))
            parts.append((i, step.forward[i], step.forward_cosine[i], step.forward_q[i], "merges"))
            a, b = self.layers[at], self.layers[at + 1]
            ids, norms = ([x.cpu().numpy() for x in xs] for xs in
                          ((a.latent_ids, b.latent_ids), (a.decoder_norms, b.decoder_norms)))  # fmt: skip
            for source, target, cosine, q, kind in parts:
                early, late = norms[0][source].astype(float), norms[1][target].astype(float)
                columns = {
                    "step": at, "run": a.name, "latent_id": ids[0][source], "next_run": b.name,
                    "next_latent_id": ids[1][target], "cosine": cosine.clip(-1, 1), "q_value": q, "kind": kind,
                    "norm_ratio": late / early,
                }  # fmt: skip
                if step.map is not None or unmapped(a) is not a or unmapped(b) is not b:
                    columns["plain_cosine"] = self._plain_cosine(at, ids[0][source], ids[1][target])
                if self.fold and self.on == "writes":
                    columns["folded_mse"] = ((early - late) ** 2 + 2 * early * late * (1 - columns["cosine"])) / b.d_in
                frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True)

    def _plain_cosine(self, at: int, ids: np.ndarray, next_ids: np.ndarray) -> np.ndarray:
        """Return the cosines between latents of a layer and the next, before any linear map."""
        a, b = (unmapped(d) for d in self.layers[at : at + 2])
        read = b.encoder_directions if self.on == "reads" else b.directions
        assert read is not None
        x, y = a.directions[positions(a, ids)].double(), read[positions(b, next_ids)].double()
        return (x.cpu() * y.cpu()).sum(dim=1).clamp(-1, 1).numpy()

    def chains(self) -> pd.DataFrame:
        """Return one row per chain: where it starts and ends and why, how far it turns, and its latent per layer.

        Columns: chain, first_layer, last_layer, n_layers, begins ("first layer", "born", "splits off"), ends ("last
        layer", "dies", "merges"), turned (sum of the angles of its edges, in degrees), turned_net (angle between its
        first and last decoder direction), then latent_0, latent_1, … (−1 where the chain is absent).
        """
        paths, n = self.paths, len(self.layers)
        there = paths >= 0
        first, length = there.argmax(axis=1), there.sum(axis=1)
        last = first + length - 1
        begins = np.full(len(paths), "first layer", dtype=object)
        stops = np.full(len(paths), "last layer", dtype=object)
        angle, net = np.zeros(len(paths)), np.zeros(len(paths))
        for at, step in enumerate(self.steps):
            starting, ending = np.flatnonzero(first == at + 1), np.flatnonzero(last == at)
            begins[starting] = step.arrival[paths[starting, at + 1]]
            stops[ending] = step.fate[paths[ending, at]]
            moving = np.flatnonzero(there[:, at] & there[:, at + 1])
            angle[moving] += np.degrees(np.arccos(step.one_to_one_cosine[paths[moving, at]].clip(-1, 1)))
            for to in range(at + 1, n):
                some = np.flatnonzero((first == at) & (last == to))
                x = self.layers[at].directions[paths[some, at]].double().cpu().numpy()
                y = self.layers[to].directions[paths[some, to]].double().cpu().numpy()
                net[some] = np.degrees(np.arccos((x * y).sum(axis=1).clip(-1, 1)))
        columns = {
            "chain": np.arange(len(paths)), "first_layer": first, "last_layer": last, "n_layers": length,
            "begins": begins, "ends": stops, "turned": angle, "turned_net": net,
        }  # fmt: skip
        for at, d in enumerate(self.layers):
            columns[f"latent_{at}"] = np.where(there[:, at], d.latent_ids.cpu().numpy()[paths[:, at]], -1)
        return pd.DataFrame(columns)

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the tables to save: edges and chains."""
        return {"edges": self.edges(), "chains": self.chains()}

    def figures(self) -> Mapping[str, Figure]:
        """Return the figure to save: flow."""
        from sae_geometry import plots

        return {"flow": plots.flow_figure(self)}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the chains, bundled by the layer at which they start, with births and deaths."""
        from sae_geometry import plots

        return plots.flow_bundles(self, ax=ax)

    def _mean_folded_mse(self) -> dict[str, list[float]]:
        """Return the mean folded_mse of continuing edges per step; an empty dict if thresholds are not folded."""
        if not self.fold or self.on != "writes":
            return {}
        edges = self.edges()
        means = edges[edges["kind"] == "continues"].groupby("step")["folded_mse"].mean()
        return {"mean_folded_mse_of_continuing": [float(means.get(at, np.nan)) for at in range(len(self.steps))]}

    @cached_property
    def meanings(self) -> ChainLabels | None:
        """Return the labels along selected chains and by fate; None if no layer has labels."""
        frames = []
        for a, b, step in zip(self.layers, self.layers[1:], self.steps, strict=False):
            onward, cosine = step.onward
            ids = b.latent_ids.cpu().numpy()
            columns = {
                "run": a.name, "latent_id": a.latent_ids.cpu().numpy(), "partner_run": b.name,
                "partner_id": np.where(onward >= 0, ids[onward], -1), "fate": step.fate, "cosine": cosine,
            }  # fmt: skip
            frames.append(pd.DataFrame(columns))
        return chain_labels(pd.concat(frames), self.chains(), self.layers)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Return a name per layer: its layer number if all numbers are known and distinct, else its position."""
        said = [layer_of(unmapped(d)) for d in self.layers]
        numbers = said if None not in said and len(set(said)) == len(said) else range(len(said))
        return tuple(f"{n}" for n in numbers)

    def summary(self) -> dict[str, Any]:
        """Return the counts per step, survivors, chain lengths and caveats as a JSON-ready dict."""
        chains = self.chains()
        whole = chains[chains["n_layers"] == len(self.layers)]
        return {
            "inputs": {name: describe_input(d) for name, d in zip(self.layer_names, self.layers, strict=True)},
            "on": self.on,
            "edge_means": "a cosine at or above the threshold that, given enough latents, is significant",
            "threshold": self.threshold,
            "false_discovery_rate": self.false_discovery_rate,
            "folded": self.fold,
            "steps": [
                {
                    "from": a,
                    "to": b,
                    "one_to_one_matching": s.method,
                    "continuing": s.n_continuing,
                    "splits": s.n_splits,
                    "merges": s.n_merges,
                    "births": s.n_births,
                    "deaths": s.n_deaths,
                    "mean_cosine_of_continuing": known_mean(s.one_to_one_cosine[s.one_to_one >= 0]),
                    **({} if s.map is None else dict(s.map)),
                }
                for a, b, s in zip(self.layer_names, self.layer_names[1:], self.steps, strict=False)
            ],
            "survivors": self.survivors.tolist(),
            "survivors_means": "number of chains that start at layer i and survive to layer j",
            "n_chains": len(chains),
            "n_through_all_layers": int(self.survivors[0, -1]),
            "median_degrees_turned_through_all_layers": _median(whole["turned"]),
            "median_decoder_norm": [float(d.decoder_norms.median()) for d in self.layers],
            **self._mean_folded_mse(),
            **({} if self.meanings is None else {"labels": self.meanings.summary()}),
            "caveats": list(self.caveats),
        }

    def details(self) -> str:
        """Return the full report: the printed summary, every step, the lengths of the chains, and every caveat."""
        heads = ("step", "continue", "splits", "merges", "births", "deaths", "median norms")
        norms = [f"{float(d.decoder_norms.median()):.3g}" for d in self.layers]
        names = self.layer_names
        rows = [
            (f"{names[at]} → {names[at + 1]}", *(f"{n:,}" for n in counts), f"{norms[at]} → {norms[at + 1]}")
            for at, counts in enumerate(zip(*self._counts().values(), strict=True))
        ]
        lengths = self.chains()["n_layers"].value_counts().sort_index(ascending=False)
        by_length = ", ".join(f"{n:,} of {length}" for length, n in lengths.items())
        return "\n".join([super().details(), *aligned([heads, *rows]), f"chains by layers: {by_length}"])

    def _counts(self) -> dict[str, list[int]]:
        return {
            key: [getattr(s, f"n_{key}") for s in self.steps]
            for key in ("continuing", "splits", "merges", "births", "deaths")
        }

    @property
    def sentences(self) -> str:
        first, last = self.layer_names[0], self.layer_names[-1]
        return (
            f"Of {counted(self.layers[0].n_latents, 'latent')} at layer {first}, {self.survivors[0, -1]:,} survive "
            f"to layer {last}. There are {sum(s.n_births for s in self.steps):,} births, "
            f"{sum(s.n_deaths for s in self.steps):,} deaths, {sum(s.n_splits for s in self.steps):,} splits and "
            f"{sum(s.n_merges for s in self.steps):,} merges in {counted(len(self.steps), 'step')}."
        )

    def _lines(self) -> list[str]:
        names, sizes, chains = self.layer_names, [d.n_latents for d in self.layers], self.chains()
        whole = chains[chains["n_layers"] == len(self.layers)]
        through = self.survivors[0, -1]
        counts = self._counts()
        norms = [f"{float(d.decoder_norms.median()):.3g}" for d in self.layers]
        what = "decoder · next encoder" if self.on == "reads" else "decoder cosine"
        turned, net = (_median(whole[c]) for c in ("turned", "turned_net"))
        angles = f": turned {turned:.1f}°, net {net:.1f}° (medians)" if len(whole) else ""
        return [
            f"Flow through {len(sizes)} layers, {' '.join(ends(names, 2))} ({what} ≥ {self.threshold:g}, FDR "
            f"{self.false_discovery_rate:.0%})",
            f"  of {sizes[0]:,} at layer {names[0]}, {through:,} survive to layer {names[-1]}",
            f"  survivors by layer: {_listed(self.survivors[0])}",
            *(f"  {key} per step: {_listed(counts[key])}" for key in ("births", "deaths", "splits", "merges")),
            f"  {len(chains):,} chains, {len(whole):,} through all layers{angles}",
            f"  median decoder norm{' × threshold' if self.fold else ''}: {' '.join(ends(norms, 6))}",
            f"  {BASIS}",
        ]


def _listed(values: Any) -> str:
    return " ".join(ends([f"{int(v):,}" for v in values], 8))


def _median(values: Any) -> float:
    return float(np.median(values)) if len(values) else float("nan")
