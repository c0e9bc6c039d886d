"""Runs of Weights & Biases by its own client, where a key is configured.

The client answers what a run holds. Its downloads are not used: it leaves a truncated file at its final path, accepts
a wrong checksum, and waits for ever on a silent server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.limits import limits
from sae_geometry.sources.network import RefusedError, UnreachableError
from sae_geometry.sources.run_record import RunRecord, as_table, plain_config
from sae_geometry.sources.transfer import RemoteFile
from sae_geometry.sources.wandb_host import base_url, how_to_sign_in

_MAX_FILES = 200_000


class SignedInClient:
    """What a run holds, asked with a key."""

    def __init__(self, key: str) -> None:
        try:
            import wandb
        except ImportError as error:
            raise SourceError("a W&B key is configured but the wandb package is missing: pip install wandb") from error
        self._wandb = wandb
        with _quiet_and_bounded(), _told("signing in"):
            timeout = int(limits().connect + limits().silence)
            self._api = wandb.Api(overrides={"base_url": base_url()}, timeout=timeout, api_key=key)

    def run(self, path: str) -> RunRecord:
        """One run.

        Raises:
            RefusedError: no such run, or not for this key.
        """
        with _quiet_and_bounded(), _told(f"asking for {path}"):
            return _record(path, self._api.run(path))

    def files(self, path: str) -> list[RemoteFile]:
        """Every file of a run, all pages of them."""
        with _quiet_and_bounded(), _told(f"listing the files of {path}"):
            found = []
            for file in self._api.run(path).files(per_page=100):
                found.append(RemoteFile(str(file.name), str(file.url), file.size or None, file.md5 or None))
                if len(found) > _MAX_FILES:
                    raise SourceError(f"W&B lists more than {_MAX_FILES:,} files for {path}; stopped")
            return found

    def runs(self, path: str) -> Iterator[RunRecord]:
        """The runs of "entity/project"."""
        with _quiet_and_bounded(), _told(f"listing the runs of {path}"):
            for run in self._api.runs(path, per_page=50, lazy=False):
                yield _record(f"{path}/{run.id}", run)


def _record(path: str, run: Any) -> RunRecord:
    return RunRecord(
        path, str(run.name or ""), str(run.state or ""), plain_config(run.config), as_table(run.summary_metrics)
    )


@contextmanager
def _quiet_and_bounded() -> Iterator[None]:
    """The client's settings for bounded waits and silence, as environment variables it reads when it first starts."""
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
    """The client's many exceptions as one sentence each."""
    try:
        yield
    except (SourceError, KeyboardInterrupt):
        raise
    except Exception as error:
        text = " ".join(f"{error} {error.__cause__ or ''}".split())
        low = text.lower()
        where = base_url()
        if any(w in low for w in ("401", "unauthorized", "api key", "not logged in", "user is not")):
            raise RefusedError(f"W&B at {where} does not accept the configured key ({doing}): {how_to_sign_in()}, or unset "
                          "it for a public run", 401) from None  # fmt: skip
        if "403" in low or "permission" in low:
            raise RefusedError(f"W&B at {where} does not allow this key to do that ({doing})", 403) from None
        if "not find run" in low or "404" in low or "not found" in low:
            raise RefusedError(f"W&B at {where} has nothing there ({doing}): check the spelling", 404) from None
        raise UnreachableError(f"W&B at {where} did not answer ({doing}): {_short(low)}; try again later, or --offline for "
                          "what was fetched before") from None  # fmt: skip


def _short(text: str) -> str:
    for status, said in (("429", "too many requests (429)"), ("500", "the server failed (500)"),
                         ("502", "the server failed (502)"), ("503", "the server failed (503)")):  # fmt: skip
        if status in text:
            return said
    if "refused" in text:
        return "connection refused"
    if any(w in text for w in ("timeout", "timed out", "busy", "deadline")):
        return "no answer in time"
    return text[:120]
