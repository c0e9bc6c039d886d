"""Tests that the language model from one block onwards agrees with the whole model; they need `transformers`."""

from __future__ import annotations

import pytest
import torch

from analyses.demo.train import model

transformers = pytest.importorskip("transformers")


def small_llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=5, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def test_the_tail_gives_what_the_whole_model_gives(monkeypatch):
    monkeypatch.setattr(model, "BLOCK", 3)
    whole, tokens = small_llama(), torch.randint(0, 50, (2, 9))
    with torch.no_grad():
        here, *later = model.residuals(whole, tokens)
        logits = whole(input_ids=tokens).logits
        tail = model.Tail(whole, 3)
        ours = tail(here)
    assert len(ours) == len(later) == 2
    for wanted, got in zip(later, ours, strict=True):
        torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(tail.logits(ours[-1]), logits)


def test_gradients_pass_through_the_tail_and_leave_it_alone():
    tail = model.Tail(small_llama(), 3)
    here = torch.randn(2, 9, 24, requires_grad=True)
    tail.logits(tail(here)[-1]).sum().backward()
    assert here.grad is not None
    assert float(here.grad.abs().sum()) > 0
    assert all(p.grad is None for p in tail.parameters())
