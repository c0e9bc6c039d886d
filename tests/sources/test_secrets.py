"""Tests that no key is printed or written, whatever fails and however verbose the output is."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from hf_server import HuggingFace, StoredRepo
from logged import pair as pair
from typer.testing import CliRunner
from wandb_server import Fault, Loopback, cut_short, redirect, silent, status

from sae_geometry.cli import app
from sae_geometry.io.redaction import without_secrets
from sae_geometry.results.store import save

MARKER = "5ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4"
TOKEN = f"hf_{MARKER}"
RUN = "sparsify/gpt2/d8vgjnyc"
REPO = "someone/some-saes"
WEIGHTS = "sae_weights.safetensors"
WITH_A_MARKER = b'{"errors": [{"message": "' + MARKER.encode() + b' is not allowed"}], "data": null}'

FAULTS: dict[str, Fault] = {
    "401": status(401),
    "403": status(403),
    "404": status(404),
    "500": status(500),
    "silence": silent,
    "broken off": cut_short(),
    "nonsense": lambda h, _: h.reply(b"<html>" + MARKER.encode(), kind="text/html"),
    "a key told back": lambda h, _: h.reply(WITH_A_MARKER, 400),
    "redirect": redirect(f"http://someone:{MARKER}@127.0.0.1:9/x"),
    "redirect to a file": redirect(f"file:///{MARKER}"),
}


class Everything:
    """Record of everything that commands printed and wrote."""

    def __init__(self, root: Path) -> None:
        self.root, self.said = root, ""
        self.kept: set[Path] = set()

    def run(self, *words: str) -> Result:
        """Run a command whose arguments end up in `summary.json`."""
        before, sys.argv = sys.argv, ["sae-geometry", *words]
        try:
            result = CliRunner().invoke(app, list(words))
        finally:
            sys.argv = before
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        self.said += result.stdout + result.stderr
        return result

    def keeps(self, path: Path, text: str) -> None:
        """Write a user's file that contains a key."""
        path.write_text(text)
        path.chmod(0o600)
        self.kept.add(path)

    def holds(self) -> list[str]:
        """Return where the marker appears, in any of its encodings."""
        shapes = [MARKER, *(base64.b64encode(f"{user}:{MARKER}".encode()).decode() for user in ("api", "someone"))]
        files = [p for p in self.root.rglob("*") if p.is_file() and p not in self.kept]
        found = [line for line in self.said.splitlines() if any(s in line for s in shapes)]
        return found + [str(p) for p in files if any(s.encode() in p.read_bytes() for s in shapes)]


@pytest.fixture(params=["environment", "files"])
def keys_in(request: pytest.FixtureRequest) -> str:
    """Return where the keys are stored: in environment variables or in the clients' files."""
    return str(request.param)


@pytest.fixture
def everything(
    keys_in: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, limited: Callable[..., object]
) -> Everything:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("SAE_GEOMETRY_DEBUG", "1" if keys_in == "files" else "")
    for name in ("WANDB_MODE", "WANDB_DIR", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    limited(connect=1.0, silence=0.3, tries=2, pause=0.001, longest_pause=0.002)
    return Everything(tmp_path)


@pytest.fixture
def signed_in(keys_in: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Everything, str], None]:
    """Return a function that signs in to W&B and Hugging Face through environment variables or files."""

    def sign_in(everything: Everything, url: str) -> None:
        if keys_in == "environment":
            monkeypatch.setenv("WANDB_API_KEY", MARKER)
            monkeypatch.setenv("HF_TOKEN", TOKEN)
            return
        from huggingface_hub import constants

        host = url.removeprefix("http://")
        everything.keeps(everything.root / "home/.netrc", f"machine {host}\n  login user\n  password {MARKER}\n")
        everything.keeps(everything.root / "token", TOKEN)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(everything.root / "token"))

    return sign_in


def test_no_failure_of_wandb_reveals_the_key(
    wandb_world: Loopback, everything: Everything, signed_in: Callable[[Everything, str], None]
) -> None:
    signed_in(everything, wandb_world.url)
    weights = "samples_400000.pt"
    for name, fault in FAULTS.items():
        wandb_world.graphql_fault = fault
        assert everything.run("fetch", RUN).exit_code == 1, name
        if name not in ("silence", "redirect"):  # The client itself would wait for seconds.
            assert everything.run("runs", "sparsify/gpt2", "--json").exit_code == 1, name
        wandb_world.graphql_fault, wandb_world.faults[weights] = None, fault
        assert everything.run("inspect", RUN, "--json").exit_code == 1, name
        del wandb_world.faults[weights]
    assert everything.holds() == []
    assert any(MARKER in base64.b64decode(told(h)).decode() for _, _, h in wandb_world.requests if told(h))


def told(headers: dict[str, str]) -> str:
    kind, _, value = headers.get("authorization", "").partition(" ")
    return value if kind == "Basic" else ""


def test_no_failure_of_hugging_face_reveals_the_token(
    hf_world: HuggingFace, everything: Everything, signed_in: Callable[[Everything, str], None]
) -> None:
    signed_in(everything, "http://127.0.0.1:9")
    hf_world.repos[REPO] = StoredRepo({WEIGHTS: b"no weights at all", "cfg.json": b"{}"}, small={"cfg.json"})
    for name, fault in FAULTS.items():
        if name in ("silence", "redirect"):  # The client itself would wait for long, which other files test.
            continue
        hf_world.api_fault = fault
        assert everything.run("fetch", f"hf://{REPO}").exit_code == 1, name
        hf_world.api_fault, hf_world.faults[WEIGHTS] = None, fault
        assert everything.run("within", f"hf://{REPO}", "--json").exit_code == 1, name
        hf_world.faults.clear()
    # The file is fetched whole, but is not a checkpoint.
    assert everything.run("within", f"hf://{REPO}").exit_code == 1
    assert everything.holds() == []
    assert any(TOKEN in headers.get("authorization", "") for _, _, headers in hf_world.requests)


@pytest.mark.usefixtures("blank_figures")
def test_no_result_holds_a_key(
    wandb_world: Loopback,
    everything: Everything,
    signed_in: Callable[[Everything, str], None],
    pair: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    limited: Callable[..., object],
) -> None:
    signed_in(everything, wandb_world.url)
    limited(connect=5.0, silence=5.0, tries=2)
    monkeypatch.setenv("WANDB_MODE", "offline")
    logged = everything.run("compare", *pair, "--json", "--format", "png", "-o", "saved", "--log-wandb", "me/mine")
    assert logged.exit_code == 0
    assert json.loads(logged.stdout)["command"].startswith("sae-geometry compare ")
    assert everything.run("within", f"theirs={RUN}", "--format", "svg", "-o", "read").exit_code == 0
    monkeypatch.setenv("WANDB_MODE", "online")
    wandb_world.graphql_fault = status(403)
    assert everything.run("compare", *pair, "--format", "svg", "-o", "not-logged", "--log-wandb", "me/x").exit_code != 0
    assert (everything.root / "here/read/summary.json").exists()
    assert everything.holds() == []


ADDRESSES = (
    f"https://someone:{MARKER}@wandb.ai/sparsify/gpt2/runs/d8vgjnyc",
    f"mine=https://{MARKER}@huggingface.co/{REPO}",
    f"https://someone:{MARKER}@example.org/file.pt",
    f"https://example.org/file.pt?X-Amz-Signature={MARKER}",
    f"hf://someone:{MARKER}@{REPO}",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_key_in_an_address_is_refused_and_not_repeated(everything: Everything, address: str) -> None:
    for words in (("fetch", address), ("compare", "demo:local-seed0", address), ("umap", address, "--json")):
        assert everything.run(*words).exit_code in (1, 2)
    assert everything.holds() == []
    assert "***" in everything.said


def test_a_key_in_what_is_asked_for_besides_is_not_repeated(
    wandb_world: Loopback,
    everything: Everything,
    pair: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = pair
    assert everything.run("seeds", a, b, "--dask", f"tls://someone:{MARKER}@127.0.0.1:9").exit_code in (1, 2)
    url = f"https://wandb.ai/{RUN.replace('gpt2/', 'gpt2/runs/')}?nw=1&apiKey={MARKER}"
    assert everything.run("within", url, "--format", "svg", "-o", "pasted").exit_code == 0
    summary = (everything.root / "here/pasted/summary.json").read_text()
    assert "apiKey=***" in json.loads(summary)["command"]
    monkeypatch.setenv("WANDB_BASE_URL", wandb_world.url.replace("//", f"//someone:{MARKER}@"))
    assert everything.run("fetch", RUN).exit_code == 1
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.invalid")
    monkeypatch.setenv("http_proxy", f"http://someone:{MARKER}@127.0.0.1:9")
    assert everything.run("fetch", RUN).exit_code == 1
    assert everything.holds() == []


@pytest.mark.usefixtures("blank_figures")
def test_a_key_in_the_recorded_command_is_not_saved(toy_pair, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    import sae_geometry as sg

    result = sg.compare(*toy_pair, matching="mutual")
    folder = save(result, tmp_path / "x", command=f"mine https://me:{MARKER}@example.org", formats=["svg"])
    assert json.loads((folder / "summary.json").read_text())["command"] == "mine https://***@example.org"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://me:pa@ss@x.org/a@b", "https://***@x.org/a@b"),
        ("hf://org/repo@main/file", "hf://org/repo@main/file"),
        ("x?download=true&token=abc&n=1", "x?download=true&token=***&n=1"),
        ("Bearer hf_ABCDEFGHIJKLMNOPQRSTABCDEFGHIJKLMN", "Bearer ***"),
        ("e-mail me@example.org", "e-mail me@example.org"),
        ("the key is sesame-open", "the key is ***"),
        ("short", "short"),
    ],
)
def test_without_secrets(text: str, clean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "sesame-open")
    monkeypatch.setenv("HF_TOKEN", "short")
    assert without_secrets(text) == clean
