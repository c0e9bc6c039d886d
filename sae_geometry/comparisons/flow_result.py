"""The result of following features through layers: edges, chains, fates, and their counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import ends, or_dash
from sae_geometry.matching.defaults import OneToOne
from sae_geometry.pairwise.grouping import layer_of
from sae_geometry.pairwise.inputs import describe_input
from sae_geometry.results import methods
from sae_geometry.results.answer import Answer

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Step:
    """Edges between one layer (n latents) and the next (m latents), as rows; −1 for no edge.

    Attributes:
        one_to_one: int64 [n], the next layer's latent that continues each latent.
        forward: int64 [n], each latent's nearest in the next layer.
        backward: int64 [m], each next latent's nearest in this layer.
        one_to_one_cosine, forward_cosine, backward_cosine: their cosines, edge or not.
        one_to_one_q, forward_q, backward_q: their q-values.
        method: the one-to-one matching.
    """

    one_to_one: np.ndarray
    one_to_one_cosine: np.ndarray
    one_to_one_q: np.ndarray
    forward: np.ndarray
    forward_cosine: np.ndarray
    forward_q: np.ndarray
    backward: np.ndarray
    backward_cosine: np.ndarray
    backward_q: np.ndarray
    method: OneToOne

    @cached_property
    def origin(self) -> np.ndarray:
        """Return the row in this layer that continues into each next latent, int64 [m]; −1 for none."""
        out = np.full(len(self.backward), -1)
        rows = np.flatnonzero(self.one_to_one >= 0)
        out[self.one_to_one[rows]] = rows
        return out

    @property
    def fate(self) -> np.ndarray:
        """Return "continues", "merges" or "dies" per latent of this layer."""
        onward = (self.forward >= 0) | np.isin(np.arange(len(self.forward)), self.backward)
        return np.where(self.one_to_one >= 0, "continues", np.where(onward, "merges", "dies"))

    @property
    def arrival(self) -> np.ndarray:
        """Return "continues", "splits off" or "born" per latent of the next layer."""
        inward = (self.backward >= 0) | np.isin(np.arange(len(self.backward)), self.forward)
        return np.where(self.origin >= 0, "continues", np.where(inward, "splits off", "born"))

    @property
    def n_continuing(self) -> int:
        """Return the number of one-to-one edges."""
        return int((self.one_to_one >= 0).sum())

    @property
    def n_deaths(self) -> int:
        """Return the number of latents with no edge to the next layer."""
        return int((self.fate == "dies").sum())

    @property
    def n_births(self) -> int:
        """Return the number of next latents with no edge from this layer."""
        return int((self.arrival == "born").sum())

    @property
    def n_splits(self) -> int:
        """Return the number of next latents that come from a latent which continues as another, or ends in several."""
        return int((self.arrival == "splits off").sum())

    @property
    def n_merges(self) -> int:
        """Return the number of latents that go into a next latent which continues another."""
        return int((self.fate == "merges").sum())


@dataclass(frozen=True, eq=False, repr=False)
class Flow(Answer):
    """Features followed through the layers of one model.

    Attributes:
        layers: the dictionaries, first layer first.
        steps: the edges between consecutive layers.
        on: "writes" (decoder with decoder) or "reads" (decoder with the next encoder).
        threshold: smallest cosine of an edge.
        false_discovery_rate: of each step and direction.
        fold: whether norms were multiplied by the latents' thresholds.
        caveats: what was taken for granted.
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
        """Return the layers."""
        return self.layers

    @property
    def method(self) -> str:
        """Describe in sentences what was computed and how."""
        how = methods.measure("decoder", True)
        if self.on == "reads":
            how = "the cosine of a layer's unit decoder directions with the next layer's unit encoder directions"
        after = "the next layer turned"
        decoys = f"the nearest latent of {after}"
        if self.on != "reads":
            decoys = f"the nearest other latent of its own layer and the nearest of {after}"
        folded = " Decoder norms were multiplied by the latents' thresholds." if self.fold else ""
        return (
            f"We linked the latents of {len(self.layers)} consecutive layers by {how}: to the nearest of the next "
            "layer, from the nearest of the layer before, and to the one-to-one partner. "
            f"{methods.matched(self.steps[0].method)} An edge has a cosine of at least {self.threshold:g} and is "
            f"significant. {methods.significant(decoys, self.false_discovery_rate)} {methods.EXACT}{folded}"
        )

    def answer(self) -> str:
        """Return the first screen. Layers differ in what a confound audit of two runs would flag."""
        return repr(self)

    def details(self) -> str:
        """Return the first screen."""
        return repr(self)

    @cached_property
    def paths(self) -> np.ndarray:
        """Return the rows of every chain, int64 [chains, layers], −1 before it starts and after it ends."""
        made, alive = [], np.empty(0, dtype=np.int64)
        n_chains = 0
        for at, d in enumerate(self.layers):
            chain = np.full(d.n_latents, -1)
            if at:
                origin = self.steps[at - 1].origin
                chain[origin >= 0] = alive[origin[origin >= 0]]
            new = np.flatnonzero(chain < 0)
            chain[new] = n_chains + np.arange(len(new))
            n_chains += len(new)
            made.append(chain)
            alive = chain
        out = np.full((n_chains, len(self.layers)), -1)
        for at, chain in enumerate(made):
            out[chain, at] = np.arange(len(chain))
        return out

    @cached_property
    def survivors(self) -> np.ndarray:
        """Return, for chains that start at layer i, how many are still there at layer j: int64 [layers, layers]."""
        starts = (self.paths >= 0).argmax(axis=1)
        rows = [(self.paths[starts == at] >= 0).sum(axis=0) for at in range(len(self.layers))]
        return np.array(rows)

    def edges(self) -> pd.DataFrame:
        """Return one row per edge: step, run and latent at both ends, cosine, q_value, kind, norm_ratio.

        kind is "continues", "splits" (from the nearest of the layer before) or "merges" (into the nearest of the next).
        norm_ratio is the later decoder norm over the earlier.
        """
        import pandas as pd

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
            frames += [
                pd.DataFrame(
                    {
                        "step": at,
                        "run": a.name,
                        "latent_id": ids[0][source],
                        "next_run": b.name,
                        "next_latent_id": ids[1][target],
                        "cosine": cosine.clip(-1, 1),
                        "q_value": q,
                        "kind": kind,
                        "norm_ratio": norms[1][target] / norms[0][source],
                    }
                )
                for source, target, cosine, q, kind in parts
            ]
        return pd.concat(frames, ignore_index=True)

    def chains(self) -> pd.DataFrame:
        """Return one row per chain: where it starts and ends and why, how far it turns, and its latent per layer.

        Columns: chain, first_layer, last_layer, n_layers, begins ("first layer", "born", "splits off"), ends ("last
        layer", "dies", "merges"), turned (sum of the angles of its edges, in degrees), turned_net (angle between its
        first and last decoder direction), then latent_0, latent_1, … (−1 where the chain is not).
        """
        import pandas as pd

        paths, n = self.paths, len(self.layers)
        there = paths >= 0
        first, length = there.argmax(axis=1), there.sum(axis=1)
        last = first + length - 1
        begins, stops = (
            np.full(len(paths), "first layer", dtype=object),
            np.full(len(paths), "last layer", dtype=object),
        )
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
        """Return the figure to save."""
        from sae_geometry import plots

        return {"flow": plots.flow_figure(self)}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the chains bundled by the layer they start at, with births and deaths."""
        from sae_geometry import plots

        return plots.flow_bundles(self, ax=ax)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Return a name per layer: its number in the hook points where they have different ones, else its position."""
        said = [layer_of(d) for d in self.layers]
        numbers = said if None not in said and len(set(said)) == len(said) else range(len(said))
        return tuple(f"{n}" for n in numbers)

    def summary(self) -> dict[str, Any]:
        """Return the numbers, JSON-ready."""
        chains = self.chains()
        whole = chains[chains["n_layers"] == len(self.layers)]
        return {
            "inputs": {name: describe_input(d) for name, d in zip(self.layer_names, self.layers, strict=True)},
            "on": self.on,
            "edge_means": "cosine at or above the threshold, and significant (or too few latents to be)",
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
                    "mean_cosine_of_continuing": _mean(s.one_to_one_cosine[s.one_to_one >= 0]),
                }
                for a, b, s in zip(self.layer_names, self.layer_names[1:], self.steps, strict=False)
            ],
            "still_there": self.survivors.tolist(),
            "still_there_means": "of the chains that start at layer i, how many are there at layer j",
            "n_chains": len(chains),
            "n_through_all_layers": int(self.survivors[0, -1]),
            "median_degrees_turned_through_all_layers": _median(whole["turned"]),
            "median_decoder_norm": [float(d.decoder_norms.median()) for d in self.layers],
            "caveats": list(self.caveats),
        }

    def __repr__(self) -> str:
        names, sizes = self.layer_names, [d.n_latents for d in self.layers]
        chains = self.chains()
        whole = chains[chains["n_layers"] == len(self.layers)]
        later, through = sum(sizes) - sizes[0], self.survivors[0, -1]
        counts = {key: [getattr(s, f"n_{key}") for s in self.steps] for key in ("births", "deaths", "splits", "merges")}
        longest = "; ".join(f"{n:,} of {counts_}" for n, counts_ in _lengths(chains["n_layers"]))
        norms = [f"{float(d.decoder_norms.median()):.3g}" for d in self.layers]
        what = "decoder · next encoder" if self.on == "reads" else "decoder cosine"
        return "\n".join(
            [
                f"Flow through {len(sizes)} layers, {' '.join(ends(names, 8))} ({what} ≥ {self.threshold:g}, false "
                f"discovery rate {self.false_discovery_rate:.0%})",
                f"  of {sizes[0]:,} at layer {names[0]}, {through:,} are still there at layer {names[-1]}",
                f"  still there, layer by layer: {_listed(self.survivors[0])}",
                f"  of {later:,} later latents, {sum(counts['births']):,} are born and {sum(counts['splits']):,} split "
                "off; the others continue",
                *(f"  {key}, step by step: {_listed(values)}" for key, values in counts.items()),
                f"  {len(chains):,} chains by layers: {longest}; through all layers they turn "
                f"{or_dash(_median(whole['turned']), '.1f')}° in all, {or_dash(_median(whole['turned_net']), '.1f')}° "
                "net (medians)",
                f"  median decoder norm{' × threshold' if self.fold else ''}: {' '.join(ends(norms))}",
                *(f"  caveat: {c}" for c in self.caveats),
            ]
        )


def _listed(values: Any) -> str:
    return " ".join(ends([f"{int(v):,}" for v in values], 14))


def _lengths(lengths: Any) -> list[tuple[int, str]]:
    counts = lengths.value_counts().sort_index(ascending=False)
    return [(int(n), f"{length}") for length, n in counts.head(4).items()]


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _median(values: Any) -> float:
    return float(np.median(values)) if len(values) else float("nan")
