"""Access W&B runs and artifacts over HTTPS and within our limits, with the same queries as W&B's own client.

The wandb package is not used: it waits indefinitely for a silent server, leaves a truncated download at the final path,
and accepts a wrong checksum. Public runs need no key; a configured key is sent only to its own server.
"""

from __future__ import annotations

import base64
import json
import netrc
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sae_geometry.io.redaction import hide, without_secrets
from sae_geometry.sources.cache import cache_root, safe_path
from sae_geometry.sources.download import RemoteFile
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.http import Credentials, RefusedError, limits, origin_of, whole_answer
from sae_geometry.sources.layouts.config import lookup, plain_values
from sae_geometry.sources.plain import parse_json
from sae_geometry.sources.wandb.run_record import RunRecord, as_table

_DEFAULT = "https://api.wandb.ai"  # This server has the papers' public runs; the default of W&B's client has changed.
_HOW_TO_SIGN_IN = "set WANDB_API_KEY (wandb.ai/authorize shows yours) or run `wandb login`"
_RUN_FIELDS = "name displayName state config summaryMetrics"
_RUN = f"""query Run($project: String!, $entity: String!, $name: String!) {{
  project(name: $project, entityName: $entity) {{ run(name: $name) {{ {_RUN_FIELDS} }} }}
}}"""
_FILES = """query RunFiles($project: String!, $entity: String!, $name: String!, $fileCursor: String,
    $fileLimit: Int = 100, $fileNames: [String] = [], $upload: Boolean = false, $pattern: String) {
  project(name: $project, entityName: $entity) { run(name: $name) { fileCount
    files(names: $fileNames, after: $fileCursor, first: $fileLimit, pattern: $pattern) {
      edges { node { id name url(upload: $upload) directUrl sizeBytes mimetype updatedAt md5 } cursor }
      pageInfo { endCursor hasNextPage } } } }
}"""
_RUNS = f"""query Runs($project: String!, $entity: String!, $cursor: String, $perPage: Int = 20, $order: String,
    $filters: JSONString) {{
  project(name: $project, entityName: $entity) {{ runCount(filters: $filters)
    runs(filters: $filters, after: $cursor, first: $perPage, order: $order) {{
      edges {{ node {{ {_RUN_FIELDS} }} cursor }} pageInfo {{ endCursor hasNextPage }} }} }}
}}"""
_ARTIFACT = """query ArtifactMembershipByName($entity: String!, $project: String!, $name: String!) {
  project(name: $project, entityName: $entity) { artifactCollectionMembership(name: $name) {
    versionIndex aliases { alias } artifactCollection { name project { name entity { name } } }
    artifact { id artifactType { name } metadata state } } }
}"""
_ARTIFACT_FILES = """query ArtifactMembershipFiles($entity: String!, $project: String!, $collection: String!,
    $alias: String!, $cursor: String, $perPage: Int = 50) {
  project(name: $project, entityName: $entity) { artifactCollection(name: $collection) { __typename
    artifactMembership(aliasName: $alias) { files(after: $cursor, first: $perPage) {
      edges { node { id name: displayName url directUrl sizeBytes md5 digest } cursor }
      pageInfo { endCursor hasNextPage } } } } }
}"""
_MAX_PAGES = 2000
_LONGEST_NAME = 500


@dataclass(frozen=True)
class Artifact:
    """A version of a W&B artifact.

    Attributes:
        path: "entity/project/name:v3", even if an alias was requested.
        files: names of all files in this version; empty until listed.
    """

    path: str
    kind: str
    aliases: tuple[str, ...]
    metadata: Mapping[str, Any]
    files: tuple[str, ...] = ()
    sums: Mapping[str, str] = field(default_factory=dict)


def base_url() -> str:
    """Return the URL of the W&B server: `$WANDB_BASE_URL`, or by default https://api.wandb.ai."""
    url = (os.environ.get("WANDB_BASE_URL") or _DEFAULT).rstrip("/")
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
        origin_of(url)
    except ValueError:
        good = False
    if not good:
        raise SourceError("WANDB_BASE_URL must be the URL of a server, such as https://api.wandb.ai")
    return url


def folder_of(run: str) -> Path:
    """Return the cache folder of a run, or of an artifact's version, where NAME:v3 is stored as NAME@v3."""
    host = re.sub(r"[^\w.\-]", "_", origin_of(base_url()).partition("://")[2])
    return cache_root() / "wandb" / safe_path(host) / safe_path(run.replace(":", "@"))


def api_key() -> str | None:
    """Return the key for the W&B server, from `$WANDB_API_KEY` or the .netrc entry that `wandb login` writes."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    given = os.environ.get("NETRC")
    places = [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for place in places:
        try:
            entry = netrc.netrc(str(place)).hosts.get(urlsplit(base_url()).netloc)
        except (OSError, netrc.NetrcParseError):
            continue
        if entry is not None and entry[2]:
            hide(entry[2])
            return entry[2]
    return None


def credentials() -> Credentials | None:
    """Return credentials that are sent only to the configured server; None if no key is configured."""
    if (key := api_key()) is None:
        return None
    token = base64.b64encode(f"api:{key}".encode()).decode()
    return Credentials(origin_of(base_url()), f"Basic {token}")


def run(path: str) -> RunRecord:
    """Request the record of a run, with the configured key if there is one."""
    node = lookup(_ask(_RUN, path), "run")
    if not isinstance(node, Mapping):
        raise _missing(path)
    return _record(path, node)


def files(path: str) -> list[RemoteFile]:
    """Return all files of a run, as listed on all pages of the response."""
    return [_remote_file(n) for page in _pages(_FILES, path, "fileCursor", "run.files") for n in page]


def runs(path: str) -> Iterator[RunRecord]:
    """Yield the records of all runs in "entity/project"."""
    for page in _pages(_RUNS, path, "cursor", "runs"):
        for node in page:
            name = node.get("name")
            if not isinstance(name, str) or not name.isprintable():
                raise SourceError(f"W&B lists a run without a valid name in {path}")
            yield _record(f"{path}/{name}", node)


def artifact(path: str) -> Artifact:
    """Request the version of an artifact at "entity/project/name:alias"."""
    member = lookup(_ask(_ARTIFACT, path), "artifactCollectionMembership")
    found, version, aliases = (lookup(member, name) for name in ("artifact", "versionIndex", "aliases"))
    if not isinstance(found, Mapping) or type(version) is not int or not 0 <= version < 10**9:
        raise _missing(path)
    listed = aliases if isinstance(aliases, list) else []
    return Artifact(
        f"{path.rpartition(':')[0]}:v{version}",
        str(lookup(found, "artifactType.name") or ""),
        tuple(str(a["alias"]) for a in listed if isinstance(a, Mapping) and "alias" in a),
        as_table(found.get("metadata")),
    )


def artifact_files(artifact: Artifact) -> list[RemoteFile]:
    """Return all files of an artifact, as listed on all pages of the response."""
    place, _, version = artifact.path.rpartition(":")
    more = {"collection": place.rpartition("/")[2], "alias": version}
    inside = "artifactCollection.artifactMembership.files"
    pages = _pages(_ARTIFACT_FILES, artifact.path, "cursor", inside, more)
    return [_remote_file(n) for page in pages for n in page]


def _pages(
    query: str, path: str, cursor_name: str, inside: str, more: Mapping[str, Any] | None = None
) -> Iterator[list[Mapping[str, Any]]]:
    cursor, seen, end = None, set(), time.monotonic() + limits().end
    for _ in range(_MAX_PAGES):
        connection = lookup(_ask(query, path, {**(more or {}), **({cursor_name: cursor} if cursor else {})}), inside)
        if not isinstance(connection, Mapping):
            raise _missing(path)
        listed, info = connection.get("edges"), connection.get("pageInfo")
        edges = [e for e in listed if isinstance(e, Mapping)] if isinstance(listed, list) else []
        yield [e["node"] for e in edges if isinstance(e.get("node"), Mapping)]
        if not isinstance(info, Mapping) or not info.get("hasNextPage"):
            return
        if time.monotonic() > end:
            raise SourceError(f"W&B did not finish listing {path} within {limits().end:.0f} seconds; try again later")
        cursor = info.get("endCursor") or (edges[-1].get("cursor") if edges else None)
        if not isinstance(cursor, str) or cursor in seen:
            raise SourceError(f"W&B sent the same page of the listing of {path} twice; try again later")
        seen.add(cursor)
    raise SourceError(f"the listing of {path} at W&B has more than {_MAX_PAGES:,} pages; stopped")


def _ask(query: str, path: str, more: Mapping[str, Any] | None = None) -> Any:
    entity, project, *run = path.split("/")
    variables = {"entity": entity, "project": project, **({"name": run[0]} if run else {}), **(more or {})}
    what = f"asking W&B for {path}"
    try:
        answer = _answer({"query": query, "variables": variables}, what)
    except RefusedError as error:
        if error.status in (401, 403):
            raise RefusedError(_refusal(path), error.status) from error
        raise
    if not isinstance(answer, Mapping):
        raise SourceError(f"{what}: the response is not a JSON object; is WANDB_BASE_URL right?")
    if errors := answer.get("errors"):
        said = str(errors[0].get("message", "")) if isinstance(errors, list) and isinstance(errors[0], Mapping) else ""
        denied = any(w in said.lower() for w in ("permission", "denied", "unauthorized", "login", "authenticat"))
        hint = f"; {_HOW_TO_SIGN_IN}" if denied else ""
        raise RefusedError(
            f"W&B refused {path}: {' '.join(without_secrets(said).split())[:200] or 'it gave no reason'}{hint}",
            403,
        )
    return lookup(answer, "data.project")


def _record(path: str, node: Mapping[str, Any]) -> RunRecord:
    return RunRecord(
        path,
        str(node.get("displayName") or "")[:_LONGEST_NAME],
        str(node.get("state") or "")[:_LONGEST_NAME],
        plain_values(as_table(node.get("config"))),
        as_table(node.get("summaryMetrics")),
    )


def _remote_file(node: Mapping[str, Any]) -> RemoteFile:
    """Convert W&B's description of a file; an invalid size becomes None, and an invalid MD5 matches no file."""
    name, url = node.get("name"), node.get("url") or node.get("directUrl")
    stated, md5 = str(node.get("sizeBytes")), node.get("md5")
    if not isinstance(name, str) or not isinstance(url, str):
        raise SourceError(f"W&B states no name or no URL of the file {str(name)[:80]!a}")
    try:
        on_the_web = origin_of(url).startswith(("http://", "https://"))
    except ValueError:
        on_the_web = False
    if not on_the_web:
        raise SourceError(f"W&B states no valid URL of the file {name[:80]!a}")
    size = int(stated) if stated.isdecimal() and len(stated) < 19 else None
    try:
        digest = base64.b64decode(str(md5), validate=True).hex() if md5 else None
    except ValueError:
        digest = "no MD5"
    return RemoteFile(name, url, size, digest)


def _missing(path: str) -> RefusedError:
    if api_key() is None:
        hint = f"without a key: check the spelling, or, if it is private, {_HOW_TO_SIGN_IN}"
    else:
        hint = "to the configured key: check the spelling and the access rights of this key"
    return RefusedError(f"W&B at {base_url()} does not show {path} {hint}", 404)


def _refusal(path: str) -> str:
    if api_key() is None:
        return f"W&B requires a key for {path}: {_HOW_TO_SIGN_IN}"
    return (
        f"W&B at {base_url()} does not accept the configured key (asking for {path}): {_HOW_TO_SIGN_IN}, or unset "
        "the key for a public run"
    )


def _answer(question: Mapping[str, Any], what: str) -> Any:
    url, headers = f"{base_url()}/graphql", {"Content-Type": "application/json", "Accept": "application/json"}
    sent = json.dumps(question).encode()
    raw = whole_answer("POST", url, what, headers=headers, credentials=credentials(), data=sent)
    try:
        return parse_json(raw)
    except ValueError as error:
        kind = "a web page" if raw.lstrip()[:1] == b"<" else "something other than JSON"
        raise SourceError(f"{what}: {origin_of(url)} sent {kind}; is WANDB_BASE_URL right?") from error


def check_signed_in() -> None:
    """Raise an exception unless the W&B server accepts the configured key.

    Raises:
        RefusedError: no key is configured, or the server rejects it.
        UnreachableError: the server does not respond in time.
    """
    where = base_url()
    if api_key() is None:
        raise RefusedError(
            f"not logged in to W&B at {where}: {_HOW_TO_SIGN_IN}; set WANDB_BASE_URL for another server", 401
        )
    refused = RefusedError(f"W&B at {where} does not accept the configured key: {_HOW_TO_SIGN_IN}", 401)
    try:
        answer = _answer({"query": "query Viewer { viewer { id } }"}, f"checking the key for W&B at {where}")
    except RefusedError as error:
        raise (refused if error.status in (401, 403) else error) from None
    if not as_table(as_table(answer).get("data")).get("viewer"):
        raise refused
