"""Access public W&B runs without a key: the requests of its client, over plain HTTPS."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from sae_geometry.io.redaction import without_secrets
from sae_geometry.sources.download import RemoteFile, remote_file
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.http import RefusedError, limits, post_json
from sae_geometry.sources.layouts.config import lookup
from sae_geometry.sources.wandb.artifacts import Artifact
from sae_geometry.sources.wandb.host import base_url, how_to_sign_in
from sae_geometry.sources.wandb.run_record import RunRecord, as_table, plain_config

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


class KeylessClient:
    """Query public runs and artifacts without a key."""

    def run(self, path: str) -> RunRecord:
        """Return one run.

        Raises:
            RefusedError: the server requires a key, or there is no such run.
        """
        project = self._ask(_RUN, path)
        node = project.get("run") if isinstance(project, Mapping) else None
        if not isinstance(node, Mapping):
            raise _missing(path)
        return _record(path, node)

    def files(self, path: str) -> list[RemoteFile]:
        """Return every file of a run, from all pages."""
        return _remote_files(self._pages(_FILES, path, "fileCursor", ("run", "files")))

    def runs(self, path: str) -> Iterator[RunRecord]:
        """Yield the runs of "entity/project"."""
        for page in self._pages(_RUNS, path, "cursor", ("runs",)):
            for node in page:
                name = node.get("name")
                if not isinstance(name, str) or not name.isprintable():
                    raise SourceError(f"W&B lists a run of {path} that has no name")
                yield _record(f"{path}/{name}", node)

    def artifact(self, path: str) -> Artifact:
        """Return one version of an artifact, "entity/project/name:alias".

        Raises:
            RefusedError: the server requires a key, or there is no such artifact.
        """
        project = self._ask(_ARTIFACT, path)
        member = project.get("artifactCollectionMembership") if isinstance(project, Mapping) else None
        found = member.get("artifact") if isinstance(member, Mapping) else None
        if (
            not isinstance(member, Mapping)
            or not isinstance(found, Mapping)
            or type(member.get("versionIndex")) is not int
            or not 0 <= member["versionIndex"] < 10**9
        ):
            raise _missing(path)
        aliases = member["aliases"] if isinstance(member.get("aliases"), list) else []
        return Artifact(
            f"{path.rpartition(':')[0]}:v{member['versionIndex']}",
            str(lookup(found, "artifactType.name") or ""),
            tuple(str(a["alias"]) for a in aliases if isinstance(a, Mapping) and "alias" in a),
            as_table(found.get("metadata")),
        )

    def artifact_files(self, artifact: Artifact) -> list[RemoteFile]:
        """Return every file of an artifact, from all pages."""
        place, _, version = artifact.path.rpartition(":")
        more = {"collection": place.rpartition("/")[2], "alias": version}
        inside = ("artifactCollection", "artifactMembership", "files")
        pages = self._pages(_ARTIFACT_FILES, artifact.path, "cursor", inside, more)
        return _remote_files(pages)

    def _pages(
        self, query: str, path: str, cursor_name: str, inside: tuple[str, ...], more: Mapping[str, Any] | None = None
    ) -> Iterator[list[Mapping[str, Any]]]:
        cursor, seen, end = None, set(), time.monotonic() + limits().end
        for _ in range(_MAX_PAGES):
            connection = self._ask(query, path, {**(more or {}), **({cursor_name: cursor} if cursor else {})})
            for step in inside:
                connection = connection.get(step) if isinstance(connection, Mapping) else None
            if not isinstance(connection, Mapping):
                raise _missing(path)
            listed, info = connection.get("edges"), connection.get("pageInfo")
            edges = [e for e in listed if isinstance(e, Mapping)] if isinstance(listed, list) else []
            yield [e["node"] for e in edges if isinstance(e.get("node"), Mapping)]
            if not isinstance(info, Mapping) or not info.get("hasNextPage"):
                return
            if time.monotonic() > end:
                raise SourceError(f"W&B lists {path} too slowly: no end after {limits().end:.0f} seconds; stopped")
            cursor = info.get("endCursor") or (edges[-1].get("cursor") if edges else None)
            if not isinstance(cursor, str) or cursor in seen:
                raise SourceError(f"W&B lists {path} in a circle; try again later")
            seen.add(cursor)
        raise SourceError(f"W&B lists more than {_MAX_PAGES:,} pages for {path}; stopped")

    def _ask(self, query: str, path: str, more: Mapping[str, Any] | None = None) -> Any:
        entity, project, *run = path.split("/")
        variables = {"entity": entity, "project": project, **({"name": run[0]} if run else {}), **(more or {})}
        what = f"asking W&B for {path}"
        try:
            answer = post_json(f"{base_url()}/graphql", {"query": query, "variables": variables}, what)
        except RefusedError as error:
            if error.status in (401, 403):
                raise RefusedError(f"W&B wants a key for {path}: {how_to_sign_in()}", error.status) from error
            raise
        if not isinstance(answer, Mapping):
            raise SourceError(f"{what}: the answer is not a table; is WANDB_BASE_URL right?")
        if errors := answer.get("errors"):
            said = (
                str(errors[0].get("message", "")) if isinstance(errors, list) and isinstance(errors[0], Mapping) else ""
            )
            denied = any(w in said.lower() for w in ("permission", "denied", "unauthorized", "login", "authenticat"))
            hint = f"; {how_to_sign_in()}" if denied else ""
            raise RefusedError(
                f"W&B refused {path}: {' '.join(without_secrets(said).split())[:200] or 'it did not say why'}{hint}",
                403,
            )
        data = answer.get("data")
        return data.get("project") if isinstance(data, Mapping) else None


def _record(path: str, node: Mapping[str, Any]) -> RunRecord:
    return RunRecord(
        path,
        str(node.get("displayName") or "")[:_LONGEST_NAME],
        str(node.get("state") or "")[:_LONGEST_NAME],
        plain_config(node.get("config")),
        as_table(node.get("summaryMetrics")),
    )


def _remote_files(pages: Iterator[list[Mapping[str, Any]]]) -> list[RemoteFile]:
    return [
        remote_file(n.get("name"), n.get("url") or n.get("directUrl"), n.get("sizeBytes"), n.get("md5"))
        for page in pages
        for n in page
    ]


def _missing(path: str) -> RefusedError:
    return RefusedError(
        f"W&B shows no {path} without a key: check the spelling, or, if it is private, {how_to_sign_in()}", 404
    )
