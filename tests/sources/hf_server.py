"""Loopback Hugging Face: answers huggingface_hub's requests for model repositories, and misbehaves on request."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from wandb_server import Fault, Handler, Loopback

COMMIT = "a" * 40


@dataclass
class StoredRepo:
    """Repository at one commit; files in `small` are plain git files, the others LFS."""

    files: dict[str, bytes]
    small: set[str] = field(default_factory=set)
    commit: str = COMMIT
    branches: tuple[str, ...] = ()
    refuse: tuple[int, str] | None = None


class HuggingFace(Loopback):
    """Loopback server whose `faults` are by file name; `api_fault` is for the API."""

    def __init__(self) -> None:
        self.repos: dict[str, StoredRepo] = {}
        self.api_fault: Fault | None = None
        self.head_fault: Fault | None = None
        self.cdn: str | None = None
        super().__init__()
        self.server.RequestHandlerClass = type("BoundHf", (HfHandler,), {"world": self})


class HfHandler(Handler):
    world: HuggingFace

    def do_HEAD(self) -> None:
        self.log()
        if self.world.head_fault is not None:
            self.world.head_fault(self, b"")
            return
        self.file(head=True)

    def do_GET(self) -> None:
        self.log()
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(r"/api/(?:models/|(?=datasets/))((?:datasets/)?[^/]+/[^/]+)(?:/revision/(.+))?", path)
        if api is None:
            self.file(head=False)
            return
        if self.world.api_fault is not None:
            self.world.api_fault(self, b"")
            return
        repo = self.world.repos.get(api[1])
        if repo is None:
            self.reply(b'{"error": "no"}', 401, X_Error_Code="RepoNotFound")
        elif repo.refuse is not None:
            self.reply(b'{"error": "no"}', repo.refuse[0], X_Error_Code=repo.refuse[1])
        elif api[2] not in (None, "main", repo.commit, *repo.branches):
            self.reply(b'{"error": "no"}', 404, X_Error_Code="RevisionNotFound")
        else:
            self.reply(json.dumps(self.info(api[1], repo)).encode())

    def info(self, name: str, repo: StoredRepo) -> dict[str, Any]:
        siblings = []
        for file, content in repo.files.items():
            entry: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": git_name(content)}
            if file not in repo.small:
                entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return {"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings, "private": False, "tags": []}

    def file(self, *, head: bool) -> None:
        match = re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", urlsplit(self.path).path)
        repo = self.world.repos.get(match[1]) if match else None
        if match is None or repo is None:
            self.reply(b"", 404, X_Error_Code="RepoNotFound")
            return
        name = unquote(match[3])
        if name not in repo.files:
            self.reply(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=repo.commit)
            return
        content = repo.files[name]
        lfs = name not in repo.small
        if head:
            etag = sha256(content) if lfs else git_name(content)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", repo.commit)
            if lfs:
                self.send_header("X-Linked-Size", str(len(content)))
                self.send_header("X-Linked-Etag", f'"{etag}"')
            self.end_headers()
            return
        fault = self.world.faults.get(name)
        if fault is not None:
            fault(self, content)
            return
        self.send_content(content)

    def log(self) -> None:
        self.world.requests.append((self.command, unquote(self.path), {k.lower(): v for k, v in self.headers.items()}))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
