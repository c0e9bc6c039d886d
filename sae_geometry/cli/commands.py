"""Names, summaries and examples of all commands. Each command is a function in the module of its name."""

from __future__ import annotations

# The help lists commands in this order. Each has a summary and the arguments of an example.
COMMANDS = {
    "Compare": {
        "compare": ("find each latent's partner in another dictionary", "demo:local-seed0 demo:local-seed1 -o pair"),
        "match": ("match two dictionaries one to one, optimally (PW-MCC)", "demo:local-seed0 demo:local-seed1"),
        "within": ("measure how redundant one dictionary is", "demo:local-seed0"),
        "seeds": ("compare every pair of many runs: recurrence, consensus", "saes/seed*"),
        "agreement": ("check whether encoders confirm the decoders' partners", "demo:local-seed0 demo:local-seed1"),
        "span": ("measure how much of A's unmatched latents B spans", "demo:local-seed0 demo:local-seed1"),
        "split": ("find how narrow latents split in a wide dictionary", "demo:local-narrow-seed0 demo:local-seed0"),
        "truth": ("measure how well a dictionary recovers known features", "RUN features.npy"),
        "nearest": ("find the latents closest to a vector or latent", "demo:local-seed0::latent=7 demo:local-seed1"),
        "flow": ("follow features through the layers of one model", "demo:local-seed{0,1}"),
        "drift": ("follow a run's latents through its checkpoints", "wandb:sparsify/gpt2/RUN"),
    },
    "Look": {
        "tokens": ("list the tokens that each latent promotes (logit lens)", "demo:local-seed0"),
        "umap": ("compute a UMAP of one or more dictionaries", "demo:local-seed0 demo:local-seed1 --html"),
        "project": ("place further runs in a saved UMAP", "umap-local-seed0-local-seed1 demo:e2e-seed0"),
        "explore": ("turn a saved UMAP or flow into an interactive HTML file", "umap-local-seed0-local-seed1"),
    },
    "Get": {
        "inspect": ("show what an address contains and how it is read", "./samples_400000.pt"),
        "fetch": ("download a checkpoint to the cache and verify it", "hf://org/repo/path"),
        "runs": ("list the runs of a W&B project", "sparsify/gpt2 --kind local --layer 6"),
        "demos": ("list the dictionaries that come with the package", ""),
        "cache": ("show or clear the runs fetched from W&B", ""),
    },
    "Machine": {
        "estimate": ("estimate operations, memory and time", "demo:local-seed0 demo:local-seed1 --for compare"),
        "doctor": ("check this machine and say what to fix", ""),
    },
}
