"""Contents of a flow's page: one column per layer, chains in the order of the figure, edges as partners."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_geometry.comparisons.flow_result import Flow
from sae_geometry.explorer.contents import Contents, checked, made_now
from sae_geometry.io.parquet import read_table
from sae_geometry.matching.defaults import MOST_RUNS
from sae_geometry.pairwise.label_columns import labeled_table

WIDTH = 1.7  # width of the layout, which has a height of 1
_COLUMN = 0.55  # width of a layer's column, as a share of the distance between columns
_SPREAD = (5**0.5 - 1) / 2  # The fractional parts of multiples of the golden ratio are spread evenly.
_EVIDENCE = (
    "one column per layer, one point per latent; a solid line follows a chain from layer to layer, dashed lines are "
    "splits and merges; chains that start in the same layer lie together, the longest at the bottom"
)
_ENDS, _NEXT_ENDS = ("run", "latent_id"), ("next_run", "next_latent_id")
_LABELS = {"tokens": "string", "explanation": "string", "readable": "boolean", "density": "Float64"}


def contents_of_flow(flow: Flow) -> Contents:
    """Return the contents of the page of a flow in memory."""
    summary = {**made_now(), "kind": "Flow", **flow.summary()}
    return flow_contents(flow.edges(), labeled_table(flow.chains(), flow.layers), summary)


def read_flow(folder: Path, summary: Mapping[str, Any]) -> Contents:
    """Return the contents of the page of a folder that `sae-geometry flow` wrote, given its summary.

    Raises:
        ValueError: incomplete or damaged results.
    """
    edges, chains = (read_table(folder, f"{name}.parquet") for name in ("edges", "chains"))
    return checked(flow_contents(edges, chains, summary), folder)


def flow_contents(edges: pd.DataFrame, chains: pd.DataFrame, summary: Mapping[str, Any]) -> Contents:
    """Return the contents of a flow's page from its two tables and its summary.

    Raises:
        ValueError: more layers than a page can show, or tables in a format that `Flow` does not make.
    """
    try:
        names = [str(given["name"]) for given in summary["inputs"].values()]
        if len(names) > MOST_RUNS:
            raise ValueError(f"a page shows up to {MOST_RUNS} layers; this flow has {len(names):,}")
        layers = [_layer(at, name, chains, len(names)) for at, name in enumerate(names)]
        back = edges.rename(columns=dict([*zip(_ENDS, _NEXT_ENDS, strict=True), *zip(_NEXT_ENDS, _ENDS, strict=True)]))
        both = pd.concat([edges, back]).sort_values("cosine", ascending=False, kind="stable")
        between = dict(iter(both.groupby(["run", "next_run"])))
        partners = [_partners(layer, names, between, chains) for layer in layers]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("the edges, chains or summary of the flow are damaged; rerun sae-geometry flow") from error
    points = {name: len(layer) for name, layer in zip(names, layers, strict=True)}
    shown = dict(summary) | {"points": points, "inputs": [*summary["inputs"].values()], "evidence_lines": [_EVIDENCE]}
    return Contents(pd.concat(partners, ignore_index=True), shown, {})


def _layer(at: int, name: str, chains: pd.DataFrame, n_layers: int) -> pd.DataFrame:
    """Return the latents of a layer with their chains, positions and labels."""
    there = chains[chains[f"latent_{at}"] >= 0]
    there = there.sort_values(["first_layer", "n_layers"], ascending=[True, False], kind="stable")
    pitch = WIDTH / max(n_layers - 1, 1)
    aside = (there["chain"].to_numpy() * _SPREAD) % 1 - 0.5
    labels = {
        column: pd.Series(there[f"latent_{at}:{column}"].to_numpy(), dtype=kind)
        for column, kind in _LABELS.items()
        if f"latent_{at}:{column}" in there
    }
    frame = pd.DataFrame(
        {
            "run": name,
            "latent_id": there[f"latent_{at}"].to_numpy(dtype=np.int64),
            "chain": there["chain"].to_numpy(),
            "x": pitch * (at + _COLUMN * aside),
            "y": (np.arange(len(there)) + 0.5) / max(len(there), 1),
            **labels,
        }
    )
    return frame.rename(columns={"density": "frequency"})


def _partners(
    layer: pd.DataFrame, names: list[str], edges: Mapping[Any, pd.DataFrame], chains: pd.DataFrame
) -> pd.DataFrame:
    """Return a layer with its partners in every other layer: nearest by the best edge, one-to-one by the chain.

    `edges` maps the names of two layers to the edges from the first to the second, the largest cosine first.
    """
    name = layer["run"].iloc[0]
    ids = pd.Index(layer["latent_id"])
    chain = chains.set_index("chain").loc[layer["chain"]]
    columns: dict[str, Any] = {}
    for at, other in enumerate(names):
        known: dict[str, np.ndarray] = {}
        if other != name:
            on_chain = chain[f"latent_{at}"]
            known["one_to_one_partner_id"] = on_chain.where(on_chain >= 0).to_numpy(dtype=float)
        if (between := edges.get((name, other))) is not None:
            best = between.drop_duplicates("latent_id").set_index("latent_id").reindex(ids)
            back = between.drop_duplicates("next_latent_id").set_index("next_latent_id")["latent_id"]
            on = between[between["kind"] == "continues"].set_index("latent_id")["cosine"].reindex(ids)
            known |= {
                "max_cosine": best["cosine"].to_numpy(dtype=float),
                "partner_id": best["next_latent_id"].to_numpy(dtype=float),
                "mutual": back.reindex(best["next_latent_id"]).to_numpy() == ids.to_numpy(),
                "one_to_one_cosine": on.to_numpy(dtype=float),
                "q_value": best["q_value"].to_numpy(dtype=float),
            }
        columns |= _columns(other, len(layer), known)
    return pd.concat([layer.drop(columns="chain"), pd.DataFrame(columns)], axis=1)


def _columns(other: str, n: int, known: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the six columns for partners in another layer, with nulls where nothing is known."""
    none = np.full(n, np.nan)
    whole = {key: pd.array(known.get(key, none), dtype="Int64") for key in ("partner_id", "one_to_one_partner_id")}
    numbers = {key: known.get(key, none) for key in ("max_cosine", "one_to_one_cosine", "q_value")}
    mutual = pd.array(known.get("mutual", np.zeros(n, dtype=bool)), dtype="boolean")
    return {f"{key}:{other}": values for key, values in {**numbers, **whole, "mutual": mutual}.items()}
