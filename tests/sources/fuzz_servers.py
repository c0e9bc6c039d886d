"""Answers of Weights & Biases and of Hugging Face with random errors."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fuzz_files import ORIGINALS
from fuzz_junk import changed, junk, mangled
from hf_server import COMMIT, HuggingFace, StoredRepo
from wandb_server import Loopback, StoredRun

import sae_geometry as sg
from sae_geometry.kernels.settings import Limits
from sae_geometry.sources import load, runs

SHORT = Limits(connect=1.0, silence=0.5, tries=1, pause=0.0, longest_pause=0.0)


class Servers:
    """W&B and Hugging Face servers whose every answer can be corrupted."""

    def __init__(self, folder: Path) -> None:
        os.environ.update(
            SAE_GEOMETRY_CACHE=str(folder / "cache"), HF_HUB_CACHE=str(folder / "hf"), NO_PROXY="127.0.0.1"
        )
        os.environ.update(HOME=str(folder), HF_HUB_DISABLE_TELEMETRY="1")
        for name in ("WANDB_API_KEY", "HF_TOKEN", "NETRC"):
            os.environ.pop(name, None)
        from huggingface_hub import constants

        self.folder = folder
        self.wandb, self.hf = Loopback(), HuggingFace()
        os.environ["WANDB_BASE_URL"] = self.wandb.url
        constants.ENDPOINT = self.hf.url
        constants.HUGGINGFACE_CO_URL_TEMPLATE = self.hf.url + "/{repo_id}/resolve/{revision}/{filename}"
        constants.HF_HUB_CACHE = str(folder / "hf")
        summary = {"sparsity/alive_dict_elements_indices_final/x": [1, 2], "sparsity/eval/L_0/x": 3.0}
        config = {
            "saes": {"sae_positions": ["x"]},
            "seed": 0,
            "loss": {"logits_kl": {"coeff": 0.5}, "in_to_orig": None},
        }
        self.run = StoredRun(config, summary, {"samples_1.pt": ORIGINALS["pt"][0], "config.yaml": b"a: 1"})
        self.wandb.runs["a/b/c"] = self.run
        self.hf.repos["a/b"] = StoredRepo(
            {"sae.safetensors": ORIGINALS["safetensors"][0], "cfg.json": b"{}"}, {"cfg.json"}, COMMIT
        )

    def empty(self) -> None:
        for name in ("cache", "hf"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


_SERVERS: list[Servers] = []


def servers() -> Servers:
    if not _SERVERS:
        _SERVERS.append(Servers(Path(tempfile.mkdtemp(prefix="fuzz-"))))
    _SERVERS[0].empty()
    return _SERVERS[0]


def sent(rng: random.Random, raw: bytes) -> bytes:
    """Return a JSON answer with a part changed, or mangled bytes."""
    if rng.random() < 0.15:
        return mangled(rng, raw)
    return json.dumps(changed(rng, json.loads(raw))).encode()


def wandb_family(rng: random.Random, folder: Path) -> object:
    """Corrupt W&B's answers about a run, its files or its project."""
    world = servers().wandb
    wrong = rng.randrange(3)
    count = 0

    def fault(h: Any, body: bytes) -> None:
        nonlocal count
        question = json.loads(body)
        answer = {"data": h.answer(question["query"], question.get("variables") or {})}
        if rng.random() < 0.3:  # This changes JSON that is a string inside the JSON answer.
            for run in [answer["data"]["project"].get("run")] if "project" in answer["data"] else []:
                if isinstance(run, dict) and "config" in run:
                    key = rng.choice(("config", "summaryMetrics"))
                    run[key] = json.dumps(changed(rng, json.loads(run[key])))
        raw = json.dumps(answer).encode()
        h.reply(sent(rng, raw) if count == wrong % 2 else raw)
        count += 1

    world.graphql_fault = fault
    with sg.settings(limits=SHORT):
        return runs("a/b") if wrong == 2 else load("wandb:a/b/c", "all", latent_axis=0)


def hugging_face_family(rng: random.Random, folder: Path) -> object:
    """Corrupt Hugging Face's answers about a repository and the headers of its files."""
    world = servers().hf
    repo = world.repos["a/b"]
    world.api_fault = world.head_fault = None
    if rng.random() < 0.6:
        world.api_fault = lambda h, _: h.reply(sent(rng, json.dumps(h.info("a/b", repo)).encode()))
    else:
        names = (
            "ETag",
            "X-Linked-Etag",
            "X-Repo-Commit",
            "Content-Length",
            "X-Linked-Size",
            "Location",
            "X-Error-Code",
            "Link",
            "X-Xet-Hash",
        )

        def head(h: Any, _: bytes) -> None:
            usual = {"ETag": '"abc"', "X-Repo-Commit": repo.commit, "Content-Length": "40"}
            strange = {
                rng.choice(names): str(junk(rng)).encode("ascii", "replace").decode().replace("\n", " ")[:200]
                for _ in range(2)
            }
            h.send_response(rng.choice((200, 200, 200, 302, 404, 416, 500)))
            for name, value in {**usual, **strange}.items():
                h.send_header(name, value)
            h.end_headers()

        world.head_fault = head
    with sg.settings(limits=SHORT):
        return load("hf://a/b", "all", latent_axis=0)
