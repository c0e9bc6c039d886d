"""Small checkpoints in every layout, with the names and shapes that the layouts' own tools use."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

N, D = 12, 5


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True))


def random(*shape: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype=np.float32)


def torch_bytes(tree: object) -> bytes:
    """Return what torch.save writes."""
    out = io.BytesIO()
    torch.save(tree, out)
    return out.getvalue()


DEC, ENC = random(N, D), random(N, D) + 1
B_N, B_D = random(N), random(D)
L = 3
MULTI, MULTI_ENC = random(L, N, D), random(L, N, D) - 1  # [outputs, n, d]


POINTS, MIXING = random(4, D) + 2, random(N, 4)  # for an archetypal dictionary


def cat(stack: np.ndarray) -> np.ndarray:
    return np.asarray(np.concatenate(list(stack), axis=1))


Written = tuple[str, dict[str, np.ndarray], dict[str, Any], str, np.ndarray, np.ndarray | None]
# layout, tensors, configuration, container, decoder rows, encoder rows
WRITTEN: list[Written] = [
    ("e2e_sae", {"blocks-1-hook.decoder.weight": DEC.T, "blocks-1-hook.encoder.0.weight": ENC}, {}, "pt", DEC, ENC),
    ("saelens", {"W_dec": DEC, "W_enc": ENC.T, "b_enc": B_N, "b_dec": B_D}, {}, "safetensors", DEC, ENC),
    ("saelens", {"W_dec": DEC, "W_enc": ENC.T, "b_gate": B_N, "b_mag": B_N + 1}, {}, "safetensors", DEC, ENC),
    ("saelens", {"W_dec": DEC, "b_dec": B_D}, {"architecture": "matching_pursuit"}, "safetensors", DEC, None),
    ("saelens", {"W_dec": DEC, "W_enc": ENC.T}, {"d_sae": N}, "safetensors", DEC, ENC),
    ("gemma_scope", {"W_dec": DEC, "W_enc": ENC.T, "threshold": B_N, "b_enc": B_N}, {}, "npz", DEC, ENC),
    ("gemma_scope_2", {"w_dec": DEC, "w_enc": ENC.T, "b_enc": B_N}, {}, "safetensors", DEC, ENC),
    ("gemma_scope_2_clt", {"w_dec": MULTI.transpose(1, 0, 2), "w_enc": ENC.T}, {}, "safetensors", cat(MULTI), ENC),
    ("llama_scope", {"decoder.weight": DEC.T, "encoder.weight": ENC, "decoder.bias": B_D, "encoder.bias": B_N},
     {"hook_point_in": "blocks.1.x"}, "safetensors", DEC, ENC),
    ("llamascopium", {"W_D": DEC, "W_E": ENC.T, "b_E": B_N, "b_D": B_D}, {}, "safetensors", DEC, ENC),
    ("llamascopium_crosscoder", {"W_D": MULTI, "W_E": MULTI_ENC.transpose(0, 2, 1)}, {}, "safetensors",
     cat(MULTI), cat(MULTI_ENC)),
    ("dictionary_learning", {"decoder.weight": DEC.T, "encoder.weight": ENC, "encoder.bias": B_N, "bias": B_D}, {},
     "pt", DEC, ENC),
    ("dictionary_learning", {"decoder.weight": DEC.T, "encoder.weight": ENC, "decoder_bias": B_D, "gate_bias": B_N}, {},
     "pt", DEC, ENC),
    ("dictionary_learning", {"W_dec": DEC, "W_enc": ENC.T, "b_enc": B_N}, {"trainer": {"dict_class": "JumpReLU"}}, "pt",
     DEC, ENC),
    ("sparsify", {"W_dec": DEC, "encoder.weight": ENC, "encoder.bias": B_N, "b_dec": B_D, "W_skip": random(D, D)}, {},
     "safetensors", DEC, ENC),
    ("openai", {"decoder.weight": DEC.T, "encoder.weight": ENC, "pre_bias": B_D, "latent_bias": B_N}, {}, "pt",
     DEC, ENC),
    ("goodfire", {"decoder_linear.weight": DEC.T, "encoder_linear.weight": ENC, "encoder_linear.bias": B_N}, {}, "pt",
     DEC, ENC),
    ("linear", {"decoder.weight": DEC.T, "encoder.weight": ENC}, {}, "pt", DEC, ENC),
    ("qwen_scope", {"W_dec": DEC.T, "W_enc": ENC, "b_enc": B_N, "b_dec": B_D}, {}, "pt", DEC, ENC),
    ("circuit_tracer", {"W_dec": DEC, "W_enc": ENC, "b_enc": B_N, "b_dec": B_D}, {}, "safetensors", DEC, ENC),
    ("circuit_tracer", {"W_dec": DEC, "W_enc": ENC, "b_enc": B_N}, {"feature_input_hook": "mlp.hook_in"}, "safetensors",
     DEC, ENC),
    ("circuit_tracer_2024", {"W_dec": DEC.T, "W_enc": ENC.T, "b_enc": B_N}, {}, "safetensors", DEC, ENC),
    ("circuit_tracer_clt", {"W_dec_1": MULTI.transpose(1, 0, 2), "W_enc_1": ENC}, {}, "safetensors", cat(MULTI), ENC),
    ("temporal", {"D": DEC, "E": ENC.T}, {}, "safetensors", DEC, ENC),
    ("temporal", {"D": DEC}, {}, "safetensors", DEC, None),
    ("crosscoder_models", {"W_dec": MULTI.transpose(1, 0, 2), "W_enc": MULTI_ENC.transpose(0, 2, 1)}, {}, "pt",
     cat(MULTI), cat(MULTI_ENC)),
    ("dictionary_learning_crosscoder", {"decoder.weight": MULTI, "encoder.weight": MULTI_ENC.transpose(0, 2, 1)}, {},
     "safetensors", cat(MULTI), cat(MULTI_ENC)),
    ("sae_geometry_consensus",
     {"W_dec": DEC, "W_enc": ENC, "members": np.zeros((N, 2), np.int64), "n_runs": np.full(N, 2, np.int64)},
     {}, "safetensors", DEC, ENC),
    ("sae_geometry", {"W_dec": DEC, "W_enc": ENC, "frequency": np.full(N, 0.5, np.float32)}, {}, "safetensors",
     DEC, ENC),
    # overcomplete 0.3 scales the stored decoder, and its encoder may have blocks before the last linear map.
    ("overcomplete", {"dictionary._weights": DEC, "dictionary.multiplier": np.float32([0.5])[0],
     "encoder.final_block.0.weight": ENC, "encoder.final_block.0.bias": B_N}, {}, "pt", DEC, ENC),
    ("overcomplete", {"dictionary._weights": DEC, "encoder.final_block.0.weight": ENC,
     "encoder.mlp_blocks.0.0.weight": random(D, D)}, {}, "pt", DEC, None),
    ("archetypal", {"dictionary.C": POINTS, "dictionary.W": MIXING, "dictionary.Relax": DEC,
     "dictionary.multiplier": np.float32([0.5])[0], "encoder.final_block.0.weight": ENC}, {}, "pt",
     MIXING @ POINTS + DEC, ENC),
    ("saelens_synthetic", {"feature_vectors": DEC, "bias": B_D, "firing_probabilities": np.full(N, 0.25, np.float32)},
     {}, "pt", DEC, None),
    ("tied", {"_orig_mod.W": DEC.T, "_orig_mod.b_enc": B_N, "_orig_mod.b_dec": B_D}, {}, "pt", DEC, DEC),
    ("tied", {"W": DEC.T, "b_enc": B_N}, {}, "pt", DEC, DEC),
    ("tied", {"W": DEC.T, "b_dec": B_D}, {}, "pt", DEC, DEC),
    ("llamascopium_lorsa", {"W_O": DEC, "W_V": ENC, "W_Q": random(2, D, 3), "b_V": B_N, "b_D": B_D}, {}, "pt",
     DEC, ENC),
    ("llamascopium_molt", {"U_matrices.1": DEC[:, :, None], "V_matrices.1": ENC[:, None, :], "W_E": ENC.T, "b_E": B_N},
     {}, "pt", DEC, ENC),
    ("esmc_sae", {"W_enc": ENC.T, "W_dec": DEC, "b_dec": B_D, "idf": B_N, "max": B_N}, {}, "pt", DEC, ENC),
    ("interprot", {"w_enc": ENC.T, "w_dec": DEC, "b_enc": B_N, "b_pre": B_D}, {}, "pt", DEC, ENC),
    ("crosslayer_coding", {"decoder_module.decoders.2->2.weight": DEC.T, "encoder_module.encoders.2.weight": ENC}, {},
     "pt", DEC, ENC),
    ("crosslayer_coding", {"decoder_module.decoders.2.weight": DEC.T, "encoder_module.encoders.2.weight": ENC}, {},
     "pt", DEC, ENC),
    ("rows", {"array": DEC}, {}, "npy", DEC, None),
    ("rows", {"directions": DEC}, {}, "safetensors", DEC, None),
]  # fmt: skip


def write(folder: Path, tensors: dict[str, np.ndarray], config: dict[str, Any], container: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"weights-of-it.{container}"
    torch_tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}
    match container:
        case "safetensors":
            save_file(torch_tensors, path)
        case "pt":
            torch.save(torch_tensors, path)
        case "npz":
            np.savez(path, **tensors)
        case "npy":
            np.save(path, tensors["array"])
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return path
