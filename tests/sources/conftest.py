"""Loopback servers, a private cache, and the checkpoints that real tools wrote."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from helpers import E2E
from hf_server import HuggingFace
from wandb_server import Loopback, StoredRun

from sae_geometry.kernels.settings import Limits, changed


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set an empty cache, a home without credentials, and short waits."""
    home = tmp_path / "home"
    home.mkdir()
    folder = tmp_path / "cache"
    for name in ("WANDB_API_KEY", "HF_TOKEN", "NETRC", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SAE_GEOMETRY_CACHE", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return folder


@pytest.fixture(autouse=True)
def short_waits() -> Iterator[None]:
    """Shorten all waits, so that a hanging server costs little time."""
    with changed(limits=Limits(connect=1.0, silence=0.5, tries=3, pause=0.01, longest_pause=0.05)):
        yield


@pytest.fixture
def limited() -> Iterator[Callable[..., object]]:
    """Set other limits until the test ends."""
    with ExitStack() as stack:
        yield lambda **values: stack.enter_context(changed(limits=Limits(**values)))


@pytest.fixture
def wandb_world(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """Start a W&B with one finished run, `sparsify/gpt2/d8vgjnyc`, made from a real e2e_sae checkpoint."""
    world = Loopback()
    monkeypatch.setenv("WANDB_BASE_URL", world.url)
    world.runs["sparsify/gpt2/d8vgjnyc"] = real_run()
    yield world
    world.close()


def real_run() -> StoredRun:
    """Return the run that the shared e2e_sae checkpoint comes from."""
    said = json.loads((E2E / "wandb_run.json").read_text())
    config = yaml.safe_load((E2E / "final_config.yaml").read_text())
    last = (E2E / "samples_400000.pt").read_bytes()
    files = {
        "samples_50000.pt": b"an earlier state",
        "samples_400000.pt": last,
        "final_config.yaml": (E2E / "final_config.yaml").read_bytes(),
        "output.log": b"hello",
    }
    return StoredRun(config, said["summary"], files, name=said["displayName"])


@pytest.fixture
def hf_world(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HuggingFace]:
    """Start an empty Hugging Face, with an empty cache of its client."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    world = HuggingFace()
    brisk = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: time.sleep(seconds / 10)})
    for module in (file_download, _http):
        monkeypatch.setattr(module, "time", brisk)
    monkeypatch.setattr(constants, "ENDPOINT", world.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", world.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    yield world
    world.close()
