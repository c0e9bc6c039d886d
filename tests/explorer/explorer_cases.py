"""Planted embeddings for the tests of the explorer, made without UMAP."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HOSTILE = '</script><img src=x onerror="window.hacked=1">"\'&{{about}}'


def table(names: Sequence[str], size: int, seed: int = 0) -> pd.DataFrame:
    """Return `size` latents per run on a jittered grid, with ids 3, 10, 17, … and planted random partners."""
    rng = np.random.default_rng(seed)
    n, runs = size * len(names), len(names)
    side = int(np.ceil(np.sqrt(n)))
    cell = rng.permutation(side * side)[:n]
    owner = np.repeat(np.arange(runs), size)
    ids = np.tile(3 + 7 * np.arange(size), runs)
    out = pd.DataFrame(
        {
            "run": np.array(names, dtype=object)[owner],
            "latent_id": ids,
            "x": (cell % side + rng.uniform(-0.2, 0.2, n)).astype(np.float32),
            "y": (cell // side + rng.uniform(-0.2, 0.2, n)).astype(np.float32),
        }
    )
    for other, name in enumerate(names):
        if runs == 1:
            break
        own = owner == other
        cosine = rng.uniform(0.05, 0.999, n)
        single = rng.integers(0, size, n)
        without = own | (rng.random(n) < 0.1)
        same = rng.random(n) < 0.3
        nearest = np.where(same & ~without, single, rng.integers(0, size, n))
        out[f"max_cosine:{name}"] = np.where(own, np.nan, cosine)
        out[f"partner_id:{name}"] = pd.arrays.IntegerArray(3 + 7 * nearest, own)
        out[f"mutual:{name}"] = pd.arrays.BooleanArray(rng.random(n) < 0.5, own)
        out[f"one_to_one_partner_id:{name}"] = pd.arrays.IntegerArray(3 + 7 * single, without)
        out[f"one_to_one_cosine:{name}"] = np.where(
            without, np.nan, np.where(single == nearest, cosine, cosine * rng.uniform(0.3, 0.9, n))
        )
        chosen = np.random.default_rng(7).random(n)  # A separate random stream leaves the other columns unchanged.
        out[f"q_value:{name}"] = np.where(own, np.nan, np.where(chosen < 0.5, 0.01, 0.8))
    frequency = 10 ** rng.uniform(-5, -1, n)
    out["frequency"] = pd.array(np.where(rng.random(n) < 0.05, np.nan, frequency), dtype="Float64")
    half = (cell % side) < side / 2
    out["region"] = pd.array(np.where(half, "A", np.where(cell // side < side / 2, "B", None)), dtype="string")
    return out


def labeled(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the table with an explanation and ten tokens per latent (" because" and " 2020" on every 500th row)."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 30_000, (len(frame), 10))
    tokens = [[f" token{n}" for n in row] for row in numbers]
    for at in range(0, len(frame), 500):
        tokens[at][3:5] = [" because", " 2020"]
    tokens[1][0] = HOSTILE
    words = np.array([f"word{i}" for i in range(4_000)])
    said = [" ".join(row) for row in words[rng.integers(0, len(words), (len(frame), 9))]]
    said[7] = f"references to dogs {HOSTILE}"
    return frame.assign(
        tokens=pd.array([json.dumps(row) for row in tokens], dtype="string"),
        explanation=pd.array(said, dtype="string"),
        readable=pd.array(rng.random(len(frame)) < 0.3, dtype="boolean"),
    )


def summary(names: Sequence[str], size: int, **more: Any) -> dict[str, Any]:
    """Return a summary.json; the first run has pages on Neuronpedia, the others do not."""
    inputs = [
        {
            "name": name,
            "address": f"./{name}.pt",
            "model": "toy",
            "hook_point": "blocks.1",
            "latents": f"{size} of {size} alive",
            "fingerprint": f"{i:064x}",
            "notes": [],
            "metadata": {"neuronpedia_id": "gpt2-small/6-res-jb"} if i == 0 else {},
        }
        for i, name in enumerate(names)
    ]
    return {
        "schema_version": 2,
        "kind": "Embedding",
        "command": "sae-geometry umap a b --html",
        "created": "2026-01-02T03:04:05+00:00",
        "software": {"sae-geometry": "9.9"},
        "inputs": inputs,
        "points": dict.fromkeys(names, size),
        "params": {"n_neighbors": 15, "min_dist": 0.1, "seed": 4, "backend": "umap-learn", "backend_version": "0.5"},
        "pairs": [
            {"a": a, "b": b, "mmcs_chance_a_to_b": chance(names, a, b), "mmcs_chance_b_to_a": chance(names, b, a)}
            for a, b in itertools.combinations(names, 2)
        ],
        "evidence": {"trustworthiness": 0.912, "mixing_null": None},
        "evidence_lines": ["trustworthiness 0.912", "neighbors preserved 34%"],
        "caveats": [],
        **more,
    }


def chance(names: Sequence[str], run: str, other: str) -> float:
    """Return a planted mean cosine of a run's latents to the nearest of the turned other run, unique per direction."""
    return 0.3 + 0.01 * names.index(run) + 0.001 * names.index(other)


def regions(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the regions.json for the regions in the table."""
    found = []
    for letter, rows in frame.groupby("region"):
        box = rows.x.min(), rows.y.min(), rows.x.max(), rows.y.max()
        low_x, low_y, high_x, high_y = map(float, box)
        found.append(
            {
                "letter": letter,
                "size": len(rows),
                "verdict": "" if (frame["run"] == frame["run"].iloc[0]).all() else "mixed",
                "center": [float(rows.x.mean()), float(rows.y.mean())],
                "outline": [[low_x, low_y], [high_x, low_y], [high_x, high_y], [low_x, high_y]],
            }
        )
    return {"schema_version": 2, "how": "planted", "regions": found}


def results(folder: Path, names: Sequence[str], size: int, **more: Any) -> Path:
    """Write a results folder as `sae-geometry umap` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = table(names, size)
    frame.to_parquet(folder / "umap.parquet", index=False)
    (folder / "summary.json").write_text(json.dumps(summary(names, size, **more)))
    (folder / "regions.json").write_text(json.dumps(regions(frame)))
    return folder


def best(frame: pd.DataFrame, column: str = "max_cosine") -> np.ndarray:
    """Return each latent's largest cosine to any other run, nan where there is none."""
    columns = [c for c in frame.columns if c.startswith(f"{column}:")]
    return frame[columns].max(axis=1).to_numpy(dtype=float, na_value=np.nan)


def partner(frame: pd.DataFrame, row: int) -> dict[str, Any]:
    """Return run, id, cosine, mutual, single and single_cosine of a row's partner with the largest cosine."""
    columns = [c for c in frame.columns if c.startswith("max_cosine:")]
    name = frame.loc[row, columns].astype(float).idxmax().removeprefix("max_cosine:")
    keys = {
        "id": "partner_id", "cosine": "max_cosine", "mutual": "mutual", "single": "one_to_one_partner_id",
        "single_cosine": "one_to_one_cosine",
    }  # fmt: skip
    return {"run": name} | {key: frame.loc[row, f"{column}:{name}"] for key, column in keys.items()}


_DTYPES = {
    "Float32Array": "<f4", "Int32Array": "<i4", "Uint32Array": "<u4", "Int16Array": "<i2", "Uint16Array": "<u2",
    "Uint8Array": "u1",
}  # fmt: skip


def arrays_of(packed) -> dict[str, np.ndarray]:
    """Return copies of the arrays in a page's buffer."""
    return {
        name: np.frombuffer(packed.buffer, _DTYPES[kind], count=length, offset=offset).copy()
        for name, (kind, offset, length) in packed.where.items()
    }
