"""Loopback server that a W&B client can log a run to, and that keeps what is created, streamed and uploaded."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from wandb_server import Fault, Handler, Loopback


class Sink(Loopback):
    """Server with the runs of `Loopback` that also accepts new ones."""

    def __init__(self) -> None:
        self.mutations: list[tuple[str, dict[str, Any]]] = []
        self.streamed: list[tuple[str, dict[str, Any]]] = []
        self.uploads: dict[str, bytes] = {}
        self.refused: set[str] = set()
        self.upload_fault: Fault | None = None
        super().__init__()

    def mutated(self, name: str) -> list[dict[str, Any]]:
        """Return the variables of every mutation with this name."""
        return [v for n, v in self.mutations if n == name]

    def committed(self, kind: str) -> dict[str, dict[str, bytes]]:
        """Return the files of each committed artifact of a type, by path."""
        committed = {v["artifactID"] for v in self.mutated("CommitArtifact")}
        found = {}
        for v in self.mutated("CreateArtifact"):
            name = v["input"]["artifactCollectionName"]
            if v["input"]["artifactTypeName"] == kind and f"artifact-{name}" in committed:
                start = f"/artifacts/artifact-{name}/"
                found[name] = {p.removeprefix(start): b for p, b in self.uploads.items() if p.startswith(start)}
        return found

    def summary(self) -> dict[str, Any]:
        """Return the last streamed summary."""
        last: dict[str, Any] = {}
        for _, body in self.streamed:
            for line in body.get("files", {}).get("wandb-summary.json", {}).get("content", []):
                last = json.loads(line)
        return last


class SinkHandler(Handler):
    world: Sink

    def do_POST(self) -> None:
        if self.path.endswith("/file_stream"):
            self.world.streamed.append((self.path, json.loads(self.body())))
            self.reply(b"{}")
            return
        try:
            super().do_POST()
        except PermissionError:
            self.reply(json.dumps({"errors": [{"message": "permission denied"}], "data": None}).encode(), 403)

    def do_PUT(self) -> None:
        path, body = unquote(self.path), self.body()
        self.world.requests.append(("PUT", path, {k.lower(): v for k, v in self.headers.items()}))
        if self.world.upload_fault is not None:
            self.world.upload_fault(self, body)
            return
        self.world.uploads[path] = body
        self.reply(b"")

    def answer(self, query: str, v: dict[str, Any]) -> Any:
        kind, name = re.search(r"(query|mutation)\s+(\w+)", query).groups()
        if kind == "mutation":
            self.world.mutations.append((name, v))
        if name in self.world.refused:
            raise PermissionError(name)
        if hasattr(self, f"on_{name}"):
            return getattr(self, f"on_{name}")(v)
        return super().answer(query, v)

    def on_RunResumeStatus(self, v: dict[str, Any]) -> Any:
        known = f"{v['entity']}/{v['project']}/{v['name']}" in self.world.runs
        return {"model": self.project(v["entity"], v["project"]) | {"bucket": {"id": "there"} if known else None}}

    def on_UpsertBucket(self, v: dict[str, Any]) -> Any:
        bucket = {
            "id": "storage-id", "name": v["name"], "displayName": v["displayName"] or "", "description": "",
            "config": v["config"], "sweepName": None, "historyLineCount": 0,
            "project": self.project(v["entity"], v["project"]),
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def on_CreateRunFiles(self, v: dict[str, Any]) -> Any:
        files = [{"name": f, "uploadUrl": f"{self.world.url}/run-files/{f}"} for f in v["files"]]
        return {"createRunFiles": {"runID": "storage-id", "uploadHeaders": [], "files": files}}

    def on_ArtifactType(self, v: dict[str, Any]) -> Any:
        return {"project": {"artifact": None}}

    def on_CreateArtifact(self, v: dict[str, Any]) -> Any:
        made = {"id": f"artifact-{v['input']['artifactCollectionName']}", "state": "PENDING"}
        return {"createArtifact": {"artifact": made | {"artifactSequence": {"latestArtifact": None}}}}

    def on_CreateArtifactManifest(self, v: dict[str, Any]) -> Any:
        file: dict[str, Any] = {"id": "manifest-file"}
        if v["includeUpload"]:
            file |= {"uploadUrl": f"{self.world.url}/manifests/{v['artifactID']}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest-{v['artifactID']}", "file": file}}}

    def on_CreateArtifactFiles(self, v: dict[str, Any]) -> Any:
        edges = []
        for file in v["input"]["artifactFiles"]:
            url = f"{self.world.url}/artifacts/{file['artifactID']}/{file['name']}"
            node = {"storagePath": None, "uploadUrl": url, "uploadHeaders": [], "uploadMultipartUrls": None}
            edges.append({"node": node | {"artifact": {"id": file["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, v: dict[str, Any]) -> Any:
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": "as-sent"}}}

    def on_ArtifactByID(self, v: dict[str, Any]) -> Any:
        name = v["id"].removeprefix("artifact-")
        made = next(
            m["input"] for m in self.world.mutated("CreateArtifact") if m["input"]["artifactCollectionName"] == name
        )
        of = {
            "__typename": "ArtifactSequence",
            "name": name,
            "project": self.project(made["entityName"], made["projectName"]),
        }
        latest = {"__typename": "ArtifactAlias", "id": "alias", "alias": "latest", "artifactCollection": of}
        return {
            "artifact": {
                "__typename": "Artifact", "id": v["id"], "artifactSequence": of, "versionIndex": 0,
                "artifactType": {"name": made["artifactTypeName"]}, "description": None, "metadata": "{}",
                "ttlDurationSeconds": -1, "ttlIsInherited": True, "tags": [], "historyStep": None, "state": "COMMITTED",
                "size": 1, "digest": made["digest"], "commitHash": "c", "fileCount": 1,
                "createdAt": "2024-01-01T00:00:00", "updatedAt": None, "aliases": [latest],
            }
        }  # fmt: skip

    @staticmethod
    def project(entity: str, name: str) -> dict[str, Any]:
        return {"id": "project-id", "internalId": "1", "name": name, "entity": {"id": "entity-id", "name": entity}}


Sink.handler = SinkHandler
