"""Access W&B runs by its own client, where a key is configured.

The client only lists contents. Its downloads are not used: it leaves a truncated file at the final path, accepts a
wrong checksum, and waits indefinitely for a silent server.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sae_geometry.io.redaction import without_secrets
from sae_geometry.sources.download import RemoteFile, remote_file
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.http import RefusedError, UnreachableError, check_status, limits, open_url, post_json
from sae_geometry.sources.wandb.artifacts import Artifact
from sae_geometry.sources.wandb.host import api_key, base_url, credentials_for, how_to_sign_in
from sae_geometry.sources.wandb.run_record import RunRecord, as_table, plain_config

_MAX_FILES = 200_000


class SignedInClient:
    """Query runs and artifacts with a key."""

    def __init__(self, key: str) -> None:
        try:
            import wandb
        except ImportError as error:
            raise SourceError("a W&B key is configured but the wandb package is missing: pip install wandb") from error
        self._wandb = wandb
        with quiet_and_bounded(), _told("signing in"):
            timeout = int(limits().connect + limits().silence)
            self._api = wandb.Api(overrides={"base_url": base_url()}, timeout=timeout, api_key=key)

    def run(self, path: str) -> RunRecord:
        """Return one run.

        Raises:
            RefusedError: no such run, or no access with this key.
        """
        with quiet_and_bounded(), _told(f"asking for {path}"):
            return _record(path, self._api.run(path))

    def files(self, path: str) -> list[RemoteFile]:
        """Return every file of a run, from all pages."""
        with quiet_and_bounded(), _told(f"listing the files of {path}"):
            return _listed(self._api.run(path).files(per_page=100), path)

    def artifact(self, path: str) -> Artifact:
        """Return one version of an artifact, "entity/project/name:alias".

        Raises:
            RefusedError: no such artifact, or no access with this key.
        """
        with quiet_and_bounded(), _told(f"asking for {path}"):
            found = self._api.artifact(path)
            return Artifact(
                f"{path.rpartition(':')[0]}:{found.version}", str(found.type), tuple(map(str, found.aliases)),
                as_table(found.metadata),
            )  # fmt: skip

    def artifact_files(self, artifact: Artifact) -> list[RemoteFile]:
        """Return every file of an artifact, from all pages."""
        with quiet_and_bounded(), _told(f"listing the files of {artifact.path}"):
            return _listed(self._api.artifact(artifact.path).files(per_page=100), artifact.path)

    def runs(self, path: str) -> Iterator[RunRecord]:
        """Yield the runs of "entity/project"."""
        with quiet_and_bounded(), _told(f"listing the runs of {path}"):
            for run in self._api.runs(path, per_page=50, lazy=False):
                yield _record(f"{path}/{run.id}", run)


def _listed(files: Iterable[Any], path: str) -> list[RemoteFile]:
    found = []
    for file in files:
        found.append(remote_file(file.name, file.url, file.size or None, file.md5))
        if len(found) > _MAX_FILES:
            raise SourceError(f"W&B lists more than {_MAX_FILES:,} files for {path}; stopped")
    return found


def check_signed_in() -> None:
    """Query the server for the current user, without the client.

    Raises:
        RefusedError: no key, or a key that the server rejects.
        UnreachableError: no response in time.
        SourceError: the response is not from a W&B server.
    """
    key, where = api_key(), base_url()
    if key is None:
        raise RefusedError(
            f"not logged in to W&B at {where}: {how_to_sign_in()}; WANDB_BASE_URL names another server", 401
        )
    refused = RefusedError(f"W&B at {where} does not accept the configured key: {how_to_sign_in()}", 401)
    question = {"query": "query Viewer { viewer { id } }"}
    try:
        answer = post_json(f"{where}/graphql", question, f"asking W&B at {where} who we are", credentials_for(key))
    except RefusedError as error:
        raise (refused if error.status in (401, 403) else error) from None
    if not as_table(as_table(answer).get("data")).get("viewer"):
        raise refused


def _record(path: str, run: Any) -> RunRecord:
    return RunRecord(
        path, str(run.name or ""), str(run.state or ""), plain_config(run.config), as_table(run.summary_metrics)
    )


@contextmanager
def quiet_and_bounded() -> Iterator[None]:
    """Set environment variables that limit the client's waits and silence it; it reads them on first start."""
    wanted = {
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_X_GRAPHQL_RETRY_MAX": str(limits().tries - 1),
        "WANDB_X_GRAPHQL_TIMEOUT_SECONDS": str(limits().silence),
        "WANDB_X_GRAPHQL_RETRY_WAIT_MIN_SECONDS": str(limits().pause),
        "WANDB_X_GRAPHQL_RETRY_WAIT_MAX_SECONDS": str(limits().longest_pause),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({k: v for k, v in wanted.items() if before[k] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Translate the client's exceptions to one sentence each.

    For a server that fails, throttles or is silent, the client reports "a busy service process"; for a rejected key,
    the body of the response. So the server is queried once more, without the client, for the cause.
    """
    try:
        yield
    except (SourceError, KeyboardInterrupt):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        where = base_url()
        status, said = _what_the_server_says()
        if status in (401, 403) or any(
            w in text.lower() for w in ("permission", "invalid credentials", "not logged in")
        ):
            raise RefusedError(
                f"W&B at {where} does not accept the configured key ({doing}): {how_to_sign_in()}, or unset it for a "
                "public run",
                status or 403,
            ) from None
        if status == 404 or "not find run" in text or "not found" in text.lower():
            raise RefusedError(f"W&B at {where} found nothing ({doing}): check the spelling", 404) from None
        told = said or without_secrets(text)[:120]
        raise UnreachableError(
            f"W&B at {where} did not answer ({doing}): {told}; try again later, or --offline for what is cached"
        ) from None


def _what_the_server_says() -> tuple[int | None, str]:
    """Return the HTTP status of a refusal and the reason for a missing response; (None, "") if all is well."""
    question = b'{"query": "query Viewer { viewer { id } }"}'
    headers = {"Content-Type": "application/json"}
    try:
        with open_url(
            "POST", f"{base_url()}/graphql", headers=headers, credentials=credentials_for(api_key()), data=question
        ) as answer:
            check_status(answer, "signing in")
    except RefusedError as error:
        return error.status, str(error)
    except (ConnectionError, SourceError) as error:
        return None, str(error)
    return None, ""
