"""Every command: a module and a function of this name are in this room."""

from __future__ import annotations

# By purpose, in the order of the help: a summary, and what an example has after the name.
COMMANDS = {
    "Compare": {
        "compare": (
            "two dictionaries: partners of latents, and how similar",
            "demo:local-seed0 demo:local-seed1 -o pair",
        ),
        "match": ("two dictionaries one to one, optimally: PW-MCC, proven", "demo:local-seed0 demo:local-seed1"),
        "within": ("how redundant one dictionary is", "demo:local-seed0"),
        "seeds": ("every pair of many runs: recurrence, consensus", "saes/seed*"),
        "agreement": ("do encoders confirm the partners decoders find?", "demo:local-seed0 demo:local-seed1"),
        "span": ("how much of unmatched latents the other spans", "demo:local-seed0 demo:local-seed1"),
        "split": ("what became of a narrow dictionary in a wide one", "demo:local-narrow-seed0 demo:local-seed0"),
        "truth": ("how well a dictionary recovers known features", "RUN features.npy"),
        "nearest": ("latents closest to a probe, a vector, a latent", "demo:local-seed0::latent=7 demo:local-seed1"),
        "flow": ("features through the layers of one model", "demo:local-seed{0,1}"),
        "drift": ("one run's latents through its checkpoints", "wandb:sparsify/gpt2/RUN"),
    },
    "Look": {
        "tokens": ("the tokens each latent promotes, by logit lens", "demo:local-seed0"),
        "umap": ("UMAP of one or more dictionaries, exact neighbors", "demo:local-seed0 demo:local-seed1 --html"),
        "project": ("place further runs into a saved UMAP", "umap-local-seed0-local-seed1 demo:e2e-seed0"),
        "explore": ("a saved UMAP as one interactive HTML file", "umap-local-seed0-local-seed1"),
    },
    "Get": {
        "inspect": ("what an address contains, and how it is read", "./samples_400000.pt"),
        "fetch": ("download a checkpoint to the cache, verified", "hf://org/repo/path"),
        "runs": ("the runs of a W&B project as a table", "sparsify/gpt2 --kind local --layer 6"),
        "demos": ("the dictionaries that come with the package", ""),
        "cache": ("show or clear what has been fetched", ""),
    },
    "Machine": {
        "estimate": ("operations, memory and time beforehand", "demo:local-seed0 demo:local-seed1 --for compare"),
        "doctor": ("what works on this machine, and what to do", ""),
    },
}
