"""Load SmolLM2-135M-Instruct, whole or from block 24 on. Requires `transformers` and `gguf`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.demo.train.files import write_torch

# The dictionaries read the residual stream before this block.
BLOCK = 24
MODEL = "SmolLM2-135M-Instruct"
WEIGHTS = "weights.pt"


class Tail(torch.nn.Module):
    """The model from one block on, which maps a residual stream to later residual streams and logits."""

    def __init__(self, model: Any, start: int) -> None:
        """Take over the blocks from `start` on of a Llama-like causal language model, which modifies `model`."""
        super().__init__()
        model.model.layers = model.model.layers[start:]
        for at, layer in enumerate(model.model.layers):
            layer.self_attn.layer_idx = at
        model.config.num_hidden_layers = model.model.config.num_hidden_layers = len(model.model.layers)
        self.body, self.head = model.model, model.lm_head
        self.requires_grad_(False).eval()

    def forward(self, residual: Float[Tensor, "batch length d"]) -> list[Float[Tensor, "batch length d"]]:
        """Return the input of each later block, followed by the normed output that `logits` reads."""
        out = self.body(inputs_embeds=residual, output_hidden_states=True, use_cache=False)
        return list(out.hidden_states[1:])

    def logits(self, normed: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocabulary"]:
        """Return the logits of the normed output."""
        return self.head(normed)


def load_tail(folder: Path) -> Tail:
    """Return the model from `BLOCK` on."""
    return Tail(load_model(folder), BLOCK)


def load_model(folder: Path) -> Any:
    """Return the whole causal language model in float32."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder / "model"), dtype=torch.float32)
    model.load_state_dict(torch.load(folder / "model" / WEIGHTS, weights_only=True))
    return model.eval().requires_grad_(False)


def load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "model")


def convert(gguf: Path, folder: Path) -> None:
    """Dequantize a GGUF file into `folder/model`, which loads in seconds instead of a minute."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    del model.config.quantization_config
    model.config.save_pretrained(folder / "model")
    write_torch(folder / "model" / WEIGHTS, model.state_dict())


def residuals(model: Any, tokens: Int[Tensor, "batch length"]) -> list[Float[Tensor, "batch length d"]]:
    """Return the inputs of `BLOCK` and of each later block, followed by the normed output."""
    out = model.model(input_ids=tokens, output_hidden_states=True, use_cache=False)
    return list(out.hidden_states[BLOCK:])
