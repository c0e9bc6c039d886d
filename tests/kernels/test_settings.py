"""Tests of the settings: what they change, where, and that they are restored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sae_geometry as sg
from sae_geometry.kernels.settings import Settings, changed, current, torch_device
from sae_geometry.sources import Limits, SourceError, cache_root
from sae_geometry.sources.http import in_time, limits


def test_settings_hold_inside_and_end() -> None:
    with sg.settings(memory="2 KB", offline=True) as outer:
        assert (outer.memory, outer.offline) == (2048, True)
        with sg.settings(memory=10, device="cpu") as inner:
            assert (inner.memory, inner.offline, inner.device) == (10, True, "cpu")
        with pytest.raises(ValueError, match="a memory limit"), sg.settings(offline=False, memory="much"):
            pass
        assert current() == outer
    assert current() == Settings()


def test_what_cannot_be_set_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of auto, cpu, cuda, mps; got 'tpu'"), changed(device="tpu"):
        pass
    with pytest.raises(ValueError, match=r"executor must be a distributed\.Client"), sg.settings(executor=3):
        pass
    assert current() == Settings()


def test_every_source_respects_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with sg.settings(offline=True, cache=tmp_path / "cache"):
        for address in ("hf://a/b", "wandb:a/b/c", "wandb:a/b/c:v0"):
            with pytest.raises(SourceError, match="leave out --offline"):
                sg.load(address)
        with pytest.raises(ValueError, match="which offline forbids"):
            sg.fetch("hf://a/b", force=True)


def test_a_cache_is_chosen(tmp_path: Path) -> None:
    with sg.settings(cache=tmp_path / "here"):
        assert cache_root() == tmp_path / "here"
    assert cache_root() != tmp_path / "here"


def test_a_device_that_is_not_here_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with sg.settings(device="cuda"), pytest.raises(ValueError, match="device='cuda' is not available"):
        sg.load("no such file")
    with sg.settings(device="auto"):
        assert torch_device() == "cpu"


def test_requests_in_other_threads_have_the_same_limits() -> None:
    with sg.settings(limits=Limits(tries=7)):
        assert in_time(lambda: limits().tries, lambda: False) == 7
    assert limits().tries == 3


def test_a_memory_too_small_is_refused_with_the_one_that_does() -> None:
    x = np.random.default_rng(0).standard_normal((400, 8))
    with sg.settings(memory="1KB"), pytest.raises(ValueError, match=r"raise it with settings\(memory='\d+MB'\)"):
        sg.compare(x, x, turns=0)
