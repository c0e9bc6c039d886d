"""Loopback server that answers our requests and those of the wandb client, and misbehaves on request."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

Fault = Callable[["Handler", bytes], None]


@dataclass
class StoredRun:
    """Run as the server stores it."""

    config: dict[str, Any]
    summary: dict[str, Any]
    files: dict[str, bytes]
    name: str = "a-run"
    state: str = "finished"
    md5: dict[str, str | None] = field(default_factory=dict)
    size: dict[str, int | None] = field(default_factory=dict)


@dataclass
class StoredArtifact:
    """Version of an artifact as the server stores it."""

    files: dict[str, bytes]
    metadata: dict[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    kind: str = "model"


class QuietServer(ThreadingHTTPServer):
    """Server that does not report clients that hang up."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        return


class Loopback:
    """Server on 127.0.0.1 that logs every request."""

    handler: type[Handler]

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.faults: dict[str, Fault] = {}
        self.graphql_fault: Fault | None = None
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: dict[str, StoredArtifact] = {}
        self.files_elsewhere: str | None = None
        self.keys: set[str] | None = None
        self._stop = threading.Event()
        handler = type("Bound", (self.handler,), {"world": self})
        self.server = QuietServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self._stop.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def hang(self, seconds: float = 30.0) -> None:
        """Send nothing until the server is closed or the time is up."""
        self._stop.wait(seconds)

    def downloads(self, name: str) -> list[dict[str, str]]:
        """Return the headers of the requests for one file."""
        return [h for method, path, h in self.requests if method == "GET" and path.endswith(name)]


class Handler(BaseHTTPRequestHandler):
    world: Loopback
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        return

    def reply(self, body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.body()
        self.world.requests.append(("POST", self.path, {k.lower(): v for k, v in self.headers.items()}))
        if self.path != "/graphql":  # This is the client's own telemetry.
            self.reply(b"", 404)
            return
        if self.world.graphql_fault is not None:
            self.world.graphql_fault(self, body)
            return
        question = json.loads(body)
        self.reply(json.dumps({"data": self.answer(question["query"], question.get("variables") or {})}).encode())

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def answer(self, query: str, v: dict[str, Any]) -> Any:
        operation = re.search(r"query\s+(\w+)", query)
        name = operation[1] if operation else ""
        if name in ("Viewer", "GetViewer", "GetDefaultEntity"):
            return {
                "viewer": {
                    "id": "u",
                    "entity": "someone",
                    "username": "someone",
                    "flags": "{}",
                    "admin": False,
                    "email": "a@b.c",
                    "name": "someone",
                    "teams": {"edges": []},
                    "apiKeys": {"edges": []},
                }
            }
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        path = f"{v.get('entity')}/{v.get('project')}"
        if name == "ArtifactMembershipByName":
            return {"project": {"artifactCollectionMembership": self.membership(f"{path}/{v['name']}")}}
        if name == "ArtifactMembershipFiles":
            member = self.find_artifact(f"{path}/{v['collection']}:{v['alias']}")
            return {"project": {"artifactCollection": None if member is None else self.artifact_files(member, v)}}
        if name == "Runs":
            names = sorted(n for n in self.world.runs if n.startswith(path + "/"))
            page, info = paged(names, v.get("cursor"), v.get("perPage") or 50)
            edges = [{"node": self.node(n), "cursor": c} for n, c in page]
            return {
                "project": {
                    "internalId": "1",
                    "runCount": len(names),
                    "readOnly": True,
                    "runs": {"edges": edges, "pageInfo": info},
                }
            }
        path = f"{path}/{v.get('name')}"
        if path not in self.world.runs:
            return {"project": {"internalId": "1", "run": None}}
        if name == "Run":
            return {"project": {"run": self.node(path)}}
        if name == "RunFiles":
            run = self.world.runs[path]
            wanted = v.get("fileNames") or sorted(run.files)
            page, info = paged([f for f in wanted if f in run.files], v.get("fileCursor"), v.get("fileLimit") or 50)
            edges = [{"node": self.file_node(path, f), "cursor": c} for f, c in page]
            return {
                "project": {
                    "internalId": "1",
                    "run": {"fileCount": len(run.files), "files": {"edges": edges, "pageInfo": info}},
                }
            }
        return {}

    def find_artifact(self, path: str) -> str | None:
        """Return the version that an alias or a version such as "entity/project/name:v3" refers to."""
        stem, _, alias = path.rpartition(":")
        named = [p for p, a in self.world.artifacts.items() if p.rpartition(":")[0] == stem and alias in a.aliases]
        return path if path in self.world.artifacts else next(iter(named), None)

    def membership(self, asked: str) -> dict[str, Any] | None:
        path = self.find_artifact(asked)
        if path is None:
            return None
        stored = self.world.artifacts[path]
        entity, project, name = path.rpartition(":")[0].split("/")
        version = int(path.rpartition(":v")[2])
        home = {"id": "p", "internalId": "1", "name": project, "entity": {"name": entity}}
        aliases = [{"__typename": "ArtifactAlias", "id": a, "alias": a} for a in (*stored.aliases, f"v{version}")]
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": "m",
            "versionIndex": version,
            "createdAt": "2024-01-01T00:00:00",
            "aliases": aliases,
            "artifactCollection": {"__typename": "ArtifactSequence", "name": name, "project": home},
            "artifact": {
                "__typename": "Artifact", "id": path, "versionIndex": version, "artifactType": {"name": stored.kind},
                "artifactSequence": {"__typename": "ArtifactSequence", "name": name, "project": home},
                "description": None, "metadata": json.dumps(stored.metadata), "ttlDurationSeconds": -1,
                "ttlIsInherited": True, "tags": [], "historyStep": None, "state": "COMMITTED",
                "size": sum(map(len, stored.files.values())), "digest": "d", "commitHash": "c",
                "fileCount": len(stored.files), "createdAt": "2024-01-01T00:00:00", "updatedAt": None,
            },
        }  # fmt: skip

    def artifact_files(self, path: str, v: dict[str, Any]) -> dict[str, Any]:
        files = self.world.artifacts[path].files
        wanted = v.get("fileNames") or sorted(files)
        page, info = paged([f for f in wanted if f in files], v.get("cursor"), v.get("perPage") or 50)
        edges = [{"node": self.artifact_file(path, f), "cursor": c} for f, c in page]
        connection = {"totalCount": len(files), "edges": edges, "pageInfo": info}
        return {"__typename": "ArtifactSequence", "artifactMembership": {"files": connection}}

    def artifact_file(self, path: str, name: str) -> dict[str, Any]:
        content = self.world.artifacts[path].files[name]
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        url = f"{self.world.files_elsewhere or self.world.url}/artifactsV2/{path}/{name}"
        return {
            "__typename": "File", "id": name, "name": name, "url": url, "directUrl": url, "sizeBytes": len(content),
            "storagePath": None, "mimetype": None, "updatedAt": None, "digest": md5, "md5": md5,
        }  # fmt: skip

    def node(self, path: str) -> dict[str, Any]:
        run = self.world.runs[path]
        return {
            "id": path,
            "projectId": "1",
            "name": path.rpartition("/")[2],
            "displayName": run.name,
            "state": run.state,
            "config": json.dumps({k: {"value": x} for k, x in run.config.items()}),
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "user": {"name": "someone", "username": "someone"},
            "tags": [],
            "createdAt": "2024-01-01T00:00:00",
            "heartbeatAt": "2024-01-01T00:00:00",
            "historyKeys": None,
            "sweepName": None,
            "group": None,
            "jobType": None,
            "commit": None,
            "readOnly": True,
            "description": "",
            "notes": "",
            "historyLineCount": 1,
        }

    def file_node(self, path: str, name: str) -> dict[str, Any]:
        run = self.world.runs[path]
        content = run.files[name]
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        size = run.size.get(name, len(content))
        url = f"{self.world.files_elsewhere or self.world.url}/files/{path}/{name}"
        return {
            "id": name,
            "name": name,
            "url": url,
            "directUrl": url,
            "mimetype": "x",
            "sizeBytes": None if size is None else str(size),
            "updatedAt": "2024-01-01T00:00:00",
            "md5": run.md5.get(name, md5),
        }

    def do_GET(self) -> None:
        path = unquote(self.path)
        self.world.requests.append(("GET", path, {k.lower(): v for k, v in self.headers.items()}))
        run, name = self.locate(path)
        if run is None or name not in run.files:
            self.reply(b"nothing here", 404)
            return
        content = run.files[name]
        fault = self.world.faults.get(name)
        if fault is not None:
            fault(self, content)
            return
        self.send_content(content)

    def locate(self, path: str) -> tuple[StoredRun | StoredArtifact | None, str]:
        if path.startswith("/artifactsV2/"):
            parts = path.removeprefix("/artifactsV2/").split("/", 3)
            return (self.world.artifacts.get("/".join(parts[:3])), parts[3]) if len(parts) == 4 else (None, "")
        parts = path.removeprefix("/files/").split("/", 3)
        return (self.world.runs.get("/".join(parts[:3])), parts[3]) if len(parts) == 4 else (None, "")

    def send_content(self, content: bytes) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span:
            first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
            self.reply(content[first : last + 1], 206, Content_Range=f"bytes {first}-{last}/{len(content)}")
        else:
            self.reply(content, kind="application/octet-stream")


Loopback.handler = Handler


def paged(names: list[str], cursor: str | None, size: int) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    start = int(cursor) if cursor else 0
    page = [(n, str(start + i + 1)) for i, n in enumerate(names[start : start + size])]
    more = start + size < len(names)
    return page, {"endCursor": page[-1][1] if page else None, "hasNextPage": more}


def status(code: int, **headers: str) -> Fault:
    """Return a fault that always answers with this status."""
    return lambda h, _: h.reply(b"no", code, **headers)


def cut_short(share: float = 0.5, times: int = 10**9, *, tell_length: bool = True) -> Fault:
    """Return a fault that breaks the first few answers off part of the way."""
    count = 0

    def fault(h: Handler, content: bytes) -> None:
        nonlocal count
        count += 1
        if count > times:
            h.send_content(content)
            return
        h.send_response(200)
        if tell_length:
            h.send_header("Content-Length", str(len(content)))
        else:
            h.send_header("Connection", "close")
        h.end_headers()
        h.wfile.write(content[: int(len(content) * share)])
        h.wfile.flush()
        h.close_connection = True

    return fault


def silent(h: Handler, _: bytes) -> None:
    """Read the request and never answer."""
    h.world.hang()
    h.close_connection = True


def stalling(h: Handler, content: bytes) -> None:
    """Begin to answer, then send nothing more."""
    h.send_response(200)
    h.send_header("Content-Length", str(len(content)))
    h.end_headers()
    h.wfile.write(content[:1000])
    h.wfile.flush()
    h.world.hang()
    h.close_connection = True


def redirect(url: str, code: int = 302) -> Fault:
    """Return a fault that redirects the client."""
    return lambda h, _: h.reply(b"", code, Location=url)


def slow(seconds: float) -> Fault:
    """Return a fault that sends the right answer in small pieces."""

    def fault(h: Handler, content: bytes) -> None:
        h.send_response(200)
        h.send_header("Content-Length", str(len(content)))
        h.end_headers()
        step = max(1, len(content) // 50)
        for at in range(0, len(content), step):
            h.wfile.write(content[at : at + step])
            h.wfile.flush()
            time.sleep(seconds / 50)

    return fault
