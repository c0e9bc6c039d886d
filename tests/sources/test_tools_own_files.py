"""Tests on files that the original tools save, if installed: we must read the tool's own decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_geometry.sources import load

N, D = 40, 16


def filled(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def tool(name: str) -> Any:
    return pytest.importorskip(name, exc_type=ImportError)


def saev(path: Path) -> tuple[str, torch.Tensor]:
    model = filled(tool("saev.nn").SparseAutoencoder(tool("saev.config").SparseAutoencoder(d_vit=D, exp_factor=3)))
    tool("saev.nn").dump(str(path / "sae.pt"), model)
    return str(path / "sae.pt"), model.W_dec


def overcomplete(path: Path) -> tuple[str, torch.Tensor]:
    model = filled(tool("overcomplete.sae").TopKSAE(D, nb_concepts=N, dictionary_params={"use_multiplier": True}))
    torch.save(model.state_dict(), path / "sae.pt")
    return str(path / "sae.pt"), model.get_dictionary()


def archetypal(path: Path) -> tuple[str, torch.Tensor]:
    points = torch.randn(60, D, generator=torch.Generator().manual_seed(2))
    model = filled(tool("overcomplete.sae").RATopKSAE(D, nb_concepts=N, points=points))
    decoder = model.get_dictionary()  # This applies the constraints to the weights, as after every step.
    torch.save(model.state_dict(), path / "sae.pt")
    return str(path / "sae.pt"), decoder


def decode_clt(path: Path) -> tuple[str, torch.Tensor]:
    config = tool("clt.config").CLTConfig(num_features=N, num_layers=3, d_model=D, activation_fn="relu")
    made = tool("clt.models.clt").CrossLayerTranscoder(config, process_group=None, device=torch.device("cpu"))
    filled(made).save(str(path / "clt.pt"))
    return f"{path / 'clt.pt'}::source=1::layer=2", made.decoder_module.decoders["1->2"].weight.T


def saelens(path: Path) -> tuple[str, torch.Tensor]:
    made = tool("sae_lens")
    model = filled(made.TopKSAE(made.TopKSAEConfig(d_in=D, d_sae=N, k=4)))
    model.save_model(path)
    return str(path), model.W_dec


def saelens_synthetic(path: Path) -> tuple[str, torch.Tensor]:
    made = tool("sae_lens.synthetic.synthetic_model")
    config = made.SyntheticModelConfig(num_features=N, hidden_dim=D, orthogonalization=None)
    model = made.SyntheticModel(config, device="cpu")
    model.save(path)
    return str(path), model.feature_dict.feature_vectors


def llamascopium(path: Path) -> tuple[str, torch.Tensor]:
    made, hook = tool("llamascopium.models.sae"), "blocks.3.hook_resid_post"
    config = made.SAEConfig(
        d_model=D, expansion_factor=2.5, device="cpu", dtype=torch.float32, hook_point_in=hook, hook_point_out=hook
    )
    model = filled(made.SparseAutoEncoder(config))
    model.save_pretrained(path)
    return str(path), model.W_D


def lorsa(path: Path) -> tuple[str, torch.Tensor]:
    made = tool("llamascopium.models.lorsa")
    config = made.LorsaConfig(
        d_model=D, expansion_factor=2.5, device="cpu", dtype=torch.float32, n_qk_heads=5, d_qk_head=8, rotary_dim=8,
        n_ctx=12, hook_point_in="blocks.3.ln1.hook_normalized", hook_point_out="blocks.3.hook_attn_out",
    )  # fmt: skip
    model = filled(made.LowRankSparseAttention(config))
    model.save_pretrained(path)
    return str(path), model.W_O


@pytest.mark.parametrize(
    "write",
    [saev, overcomplete, archetypal, decode_clt, saelens, saelens_synthetic, llamascopium, lorsa],
    ids=lambda write: write.__name__,
)
def test_the_tool_s_own_decoder_is_read(write: Callable[[Path], tuple[str, torch.Tensor]], tmp_path: Path) -> None:
    address, decoder = write(tmp_path)
    unit = torch.nn.functional.normalize(decoder.detach().to(torch.float64), dim=1)
    read = load(address, "all").directions
    assert read.shape == unit.shape
    assert float((read - unit).abs().max()) < 1e-6
