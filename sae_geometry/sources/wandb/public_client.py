"""Public runs of Weights & Biases without a key: the same questions its client asks, over plain HTTPS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sae_geometry.io.redaction import without_secrets
from sae_geometry.sources.download import RemoteFile
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.http import RefusedError, post_json
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
_RUNS = f"""query Runs($project: String!, $entity: String!, $cursor: String, $perPage: Int = 50, $order: String,
    $filters: JSONString) {{
  project(name: $project, entityName: $entity) {{ runCount(filters: $filters)
    runs(filters: $filters, after: $cursor, first: $perPage, order: $order) {{
      edges {{ node {{ {_RUN_FIELDS} }} cursor }} pageInfo {{ endCursor hasNextPage }} }} }}
}}"""
_MAX_PAGES = 2000


class KeylessClient:
    """What a public run holds, asked without a key."""

    def run(self, path: str) -> RunRecord:
        """One run.

        Raises:
            RefusedError: the server wants a key, or there is no such run.
        """
        project = self._ask(_RUN, path)
        node = project.get("run") if isinstance(project, Mapping) else None
        if not isinstance(node, Mapping):
            raise _missing(path)
        return _record(path, node)

    def files(self, path: str) -> list[RemoteFile]:
        """Every file of a run, all pages of them."""
        found: list[RemoteFile] = []
        for page in self._pages(_FILES, path, "fileCursor", ("run", "files")):
            found += [_remote(node) for node in page]
        return found

    def runs(self, path: str) -> Iterator[RunRecord]:
        """The runs of "entity/project"."""
        for page in self._pages(_RUNS, path, "cursor", ("runs",)):
            for node in page:
                yield _record(f"{path}/{node.get('name')}", node)

    def _pages(
        self, query: str, path: str, cursor_name: str, inside: tuple[str, ...]
    ) -> Iterator[list[Mapping[str, Any]]]:
        cursor, seen = None, set()
        for _ in range(_MAX_PAGES):
            connection = self._ask(query, path, {cursor_name: cursor} if cursor else {})
            for step in inside:
                connection = connection.get(step) if isinstance(connection, Mapping) else None
            if not isinstance(connection, Mapping):
                raise _missing(path)
            edges = [e for e in connection.get("edges") or [] if isinstance(e, Mapping)]
            yield [e["node"] for e in edges if isinstance(e.get("node"), Mapping)]
            info = connection.get("pageInfo") or {}
            if not info.get("hasNextPage"):
                return
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
        str(node.get("displayName") or ""),
        str(node.get("state") or ""),
        plain_config(node.get("config")),
        as_table(node.get("summaryMetrics")),
    )


def _remote(node: Mapping[str, Any]) -> RemoteFile:
    size = str(node.get("sizeBytes") or "")
    url = node.get("url") or node.get("directUrl")
    if not isinstance(url, str):
        raise SourceError(f"W&B gives no URL for the file {str(node.get('name'))[:80]!r}")
    return RemoteFile(str(node.get("name")), url, int(size) if size.isdigit() else None, node.get("md5") or None)


def _missing(path: str) -> RefusedError:
    return RefusedError(
        f"W&B shows no {path} without a key: check the spelling, or, if it is private, {how_to_sign_in()}", 404
    )
