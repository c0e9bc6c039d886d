"""Parse the address of a dictionary, a single line of text, without access to the disk or the network.

[NAME=] place [::selection]

place       demo:local-seed0
            wandb:entity/project/run[#file]        or bare entity/project/run, or a pasted wandb.ai URL
            wandb:entity/project/name:v3[#file]    a version or alias of an artifact
            hf://org/repo[@revision][/path]        or bare org/repo, or a pasted huggingface.co URL
            hf://datasets/org/repo…                a dataset repository
            saelens:release/sae_id                 split at the first slash
            paper:e2e/6/local/ce                   a run of the end-to-end paper, see `catalog`
            ./folder/file.pt, ~/file.pt, /file.pt  or any existing path
selection   a hook ("blocks.6.hook_resid_pre"), or layer=2, model=1, source=0; latent_axis=1 for a decoder whose
            second axis indexes latents
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from sae_geometry.io.redaction import without_secrets
from sae_geometry.sources.errors import AddressError

Scheme = Literal["local", "demo", "wandb", "hf", "saelens", "paper"]

NAMED = re.compile(r"([\w][\w .+\-]*)=(.+)", re.DOTALL)
_PART = re.compile(r"[\w][\w.\-]*")
_PROJECT = re.compile(r"\w[\w.\- ()+,&@!]*")
_QUOTED = re.compile(r"[<\"'](.+://.+)[>\"']|\[[^]]*\]\((.+://.+)\)")  # URLs may be pasted in quotes or as Markdown.
_WEIGHTS_SUFFIX = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz", ".npy")
_SELECTORS = ("layer", "model", "source", "latent_axis")
_ALIAS = re.compile(r"[^\s/:#]+")
_NO_RUNS = {
    "sweeps": "a sweep", "reports": "a report", "reportlist": "a list of reports", "workspace": "a workspace",
    "table": "a table of runs", "groups": "a group of runs", "overview": "the overview of a project",
    "runs": "the list of a project's runs", "artifacts": "the list of a project's artifacts", "jobs": "a list of jobs",
    "launch": "a Launch page", "automations": "an automations page", "weave": "a Weave page",
}  # fmt: skip
_NAMED: dict[Scheme, str] = {
    "demo": "demo:NAME, listed by sae-geometry demos",
    "paper": "paper:e2e/LAYER/TYPE/ROLE",
    "saelens": "saelens:RELEASE/SAE_ID",
}
_HOST = re.compile(r"(?:www\.)?(?:wandb\.ai|huggingface\.co|hf\.co)/", re.IGNORECASE)
_REPO = r"(?:datasets/)?[^/@]+/[^/@]+"
_REVISION = r"refs/(?:pr|convert|heads|tags)/[^/]+|[^/]+"
_REVISION_PAGES = {"tree", "blob", "resolve", "raw", "commit"}
_NOT_ORGANIZATIONS = {"spaces", "collections", "papers", "models", "api"}


@dataclass(frozen=True)
class Selection:
    """Selection of one of several dictionaries in a file, written after `::` in an address."""

    hook: str | None = None
    layer: int | None = None
    model: int | None = None
    source: int | None = None
    latent_axis: Literal[0, 1] | None = None

    def __str__(self) -> str:
        parts = [f"::{self.hook}"] if self.hook else []
        parts += [f"::{k}={v}" for k in _SELECTORS if (v := getattr(self, k)) is not None]
        return "".join(parts)


@dataclass(frozen=True)
class Address:
    """A parsed address.

    Attributes:
        place: location within the source: a path, a demo name, a run "entity/project/run", an artifact
            "entity/project/name:v3", a repository "org/repo" or "datasets/org/repo", or "release/sae_id".
        path: file inside a run or repository; None for the default file.
        other: meaning of the text if it were not an existing path, for messages; None if it can only be a path.
    """

    typed: str
    scheme: Scheme
    place: str
    path: str | None = None
    revision: str | None = None
    label: str | None = None
    selection: Selection = Selection()
    other: str | None = None

    def __str__(self) -> str:
        """Return the canonical spelling of the address, without its label."""
        if self.scheme == "hf":
            body = f"hf://{self.place}" + (f"@{_spelled_revision(self.revision)}" if self.revision else "")
            body += f"/{self.path}" if self.path else ""
        elif self.scheme == "local":
            body = self.place
        else:
            body = f"{self.scheme}:{self.place}" + (f"#{self.path}" if self.path else "")
        return body + str(self.selection)


def parse(text: str, exists: Callable[[str], bool] = lambda _: False) -> Address:
    """Parse an address; text without a scheme is read as a local path if that path exists.

    Args:
        exists: function that returns whether a local path exists.

    Example:
        >>> str(parse("mine=https://wandb.ai/sparsify/gpt2/runs/d8vgjnyc"))
        'wandb:sparsify/gpt2/d8vgjnyc'
    """
    stripped = text.strip()
    if (quoted := _QUOTED.fullmatch(stripped)) is not None:
        text = stripped = quoted[1] or quoted[2]
    if "://" in stripped:
        if re.search(r"^(?!hf://[^\s/?#:]*@)[^\s]*://[^\s/?#]*@", stripped):  # hf://org@revision contains no user name.
            raise AddressError(
                f"{without_secrets(stripped)!r} contains a user name or a password: remove "
                "this part, and sign in with WANDB_API_KEY, `wandb login` or HF_TOKEN"
            )
        if not stripped.startswith("hf://"):  # The query of a pasted URL may contain a key.
            text = stripped = without_secrets(stripped)
    if not stripped or "\0" in stripped:
        raise AddressError(f"{text!r} is not an address: give a path, demo:NAME, wandb:…, hf://… or a pasted URL")
    label, rest = None, stripped
    if (named := NAMED.fullmatch(stripped)) is not None:
        if exists(stripped):
            other = f"{named[2].strip()} under the label {named[1].strip()}"
            return Address(stripped, "local", stripped, other=other)
        label, rest = named[1].strip(), named[2].strip()
    body, *selectors = rest.split("::")
    if not body:
        raise AddressError(f"{text!r} has no address before '::': write one, such as demo:NAME")
    address = _place(body, exists)
    return replace(address, typed=stripped, label=label, selection=_selection(selectors, stripped))


def _place(body: str, exists: Callable[[str], bool]) -> Address:
    if re.match(r"https?://", body, re.IGNORECASE):
        return _pasted(body)
    if _HOST.match(body) and not exists(body):  # The URL was pasted without https://.
        return _pasted(without_secrets(f"https://{body}"))
    if body.startswith("wandb-artifact://"):
        return _wandb(body.removeprefix("wandb-artifact://"), body)
    if body.startswith("hf:"):
        return _hugging_face(body)
    if body.startswith("wandb:"):
        return _wandb(body.removeprefix("wandb:"), body)
    for scheme, form in _NAMED.items():
        if body.startswith(f"{scheme}:"):
            first, _, second = (name := body.removeprefix(f"{scheme}:")).partition("/")
            _wanted(first and (second or scheme != "saelens"), body, form)
            return Address(body, scheme, name)
    return _bare(body, exists)


def _bare(body: str, exists: Callable[[str], bool]) -> Address:
    if body.startswith(("./", "../", "/", "~", ".\\", "..\\")) or body in {".", ".."}:
        return Address(body, "local", body)
    if body.startswith("file:///"):
        return Address(body, "local", unquote(body.removeprefix("file://")))
    if re.match(r"\w[\w+.\-]*://", body):
        raise AddressError(f"{body!r} is on neither wandb.ai nor huggingface.co: download the file and give its path")
    here = exists(body)
    parts = body.partition("#")[0].split("/")
    if len(parts) == 3 and ":" in parts[2]:  # An artifact's version is not part of its name.
        parts[2] = parts[2].partition(":")[0]
    remote = ""
    if all(_PART.fullmatch(p) for p in parts) and not parts[-1].lower().endswith(_WEIGHTS_SUFFIX):
        remote = {2: f"hf://{body}", 3: f"wandb:{body}"}.get(len(parts), "")
    if remote and not here:
        return _place(remote, exists)
    if here or "/" in body or body.lower().endswith(_WEIGHTS_SUFFIX):
        return Address(body, "local", body, other=remote or None)
    raise AddressError(
        f"{body!r} is neither an existing path nor an address: write demo:NAME, wandb:entity/project/run, "
        "hf://org/repo, saelens:release/sae_id or a path"
    )


def _wandb(rest: str, whole: str) -> Address:
    place, _, file = rest.partition("#")
    parts = place.strip("/").split("/")
    if len(parts) > 5 and parts[2] == "artifacts":  # URLs have ENTITY/PROJECT/artifacts/TYPE/NAME/VERSION.
        file = file or ("/".join(parts[7:]) if parts[6:7] == ["files"] else "")
        parts = [*parts[:2], f"{parts[4]}:{parts[5]}"]
    elif parts[2:3] == ["artifacts"] and ":" in parts[-1]:
        parts = [*parts[:2], parts[-1]]
    if len(parts) == 4 and parts[2] == "runs":
        del parts[2]
    elif len(parts) > 2 and parts[2] in _NO_RUNS:
        _not_a_run(parts, whole)
    name, colon, alias = parts[-1].partition(":")
    good = len(parts) == 3 and _PROJECT.fullmatch(parts[1]) and all(_PART.fullmatch(p) for p in (parts[0], name))
    good = good and (not colon or _ALIAS.fullmatch(alias) is not None)
    _wanted(good, whole, "wandb:entity/project/run[#file], or wandb:entity/project/name:v3[#file] for an artifact")
    return Address(whole, "wandb", "/".join(parts), path=_inside(file or None, whole))


def _not_a_run(parts: list[str], whole: str) -> None:
    project = "/".join(parts[:2])
    if parts[2] == "artifacts" and len(parts) == 5:
        raise AddressError(
            f"{whole!r} is an artifact without a version: write wandb:{project}/{parts[4]}:latest, or :v0, :v1, …"
        )
    raise AddressError(
        f"{whole!r} is {_NO_RUNS[parts[2]]}, not a run: give one of its runs, wandb:{project}/RUN "
        f"(sae-geometry runs {project} lists them)"
    )


def _hugging_face(body: str) -> Address:
    rest = re.sub(r"^hf:(//)?", "", body).strip("/")
    if rest.startswith("spaces/"):
        raise AddressError(
            f"{body!r} is a space (an app): give the model or dataset repository of that app, hf://org/repo"
        )
    head = re.fullmatch(rf"({_REPO})(?:@({_REVISION}))?(?:/(.+))?", rest)
    parts = [] if head is None else head[1].removeprefix("datasets/").split("/")
    ok = len(parts) == 2 and all(map(_PART.fullmatch, parts))
    _wanted(ok, body, "hf://org/repo[@revision][/path], or hf://datasets/org/repo… for a dataset repository")
    assert head is not None
    revision = unquote(head[2]) if head[2] else None
    return Address(body, "hf", head[1], path=_inside(head[3], body), revision=revision)


def _spelled_revision(revision: str) -> str:
    plain = re.fullmatch(r"[\w.\-]+|refs/(?:pr|convert|heads|tags)/[\w.\-]+", revision)
    return revision if plain else quote(revision, safe="")


def _pasted(url: str) -> Address:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise AddressError(f"{url!r} is not a URL ({error}): copy it from the browser again") from None
    host = (parts.hostname or "").removeprefix("www.")
    path = [unquote(p) for p in parts.path.strip("/").split("/")]
    if host in {"wandb.ai", "app.wandb.ai"}:
        if path[0] in {"orgs", "registry"} or path[1:2] == ["registry"]:
            raise AddressError(f"{url!r} is a registry page: give the linked artifact as wandb:entity/project/name:v3")
        if len(path) == 2 and path[1] != "projects":
            raise AddressError(
                f"{url!r} is a project: give one of its runs (sae-geometry runs {'/'.join(path)} lists them)"
            )
        _wanted(len(path) > 2, url, "https://wandb.ai/ENTITY/PROJECT/runs/RUN")
        file = "/".join(path[5:]) if path[2] == "runs" and path[4:5] == ["files"] else ""
        return _wandb("/".join(path[:4] if path[2] == "runs" else path) + (f"#{file}" if file else ""), url)
    if host in {"huggingface.co", "hf.co"}:
        return _pasted_hugging_face(path, url)
    raise AddressError(f"{url!r} is on neither wandb.ai nor huggingface.co: download the file and give its path")


def _pasted_hugging_face(path: list[str], url: str) -> Address:
    """Parse the URL of a page of a repository; slashes in its revision may be encoded as %2F."""
    n = 3 if path[:1] == ["datasets"] else 2
    place, page, rest = "/".join(path[:n]), path[n : n + 1], path[n + 1 :]
    _wanted(path[n - 1 : n] and path[n - 1] not in _REVISION_PAGES, url, "https://huggingface.co/ORG/REPO")
    if path[0] in _NOT_ORGANIZATIONS or (page and page[0] not in _REVISION_PAGES):
        at = f"@refs/pr/{rest[0]}" if page == ["discussions"] and rest else ""
        files = "give hf://org/repo/path" if path[0] in _NOT_ORGANIZATIONS else f"its files are at hf://{place}{at}"
        raise AddressError(f"{url!r} is a Hugging Face page without files; {files}")
    revision: str | None = None
    if rest:
        revision, rest = rest[0], rest[1:]
        if revision == "refs" and len(rest) > 1:
            revision, rest = "/".join((revision, *rest[:2])), rest[2:]
    _wanted(all(_PART.fullmatch(p) for p in path[:n]) and len(path) >= n > 1, url, "https://huggingface.co/ORG/REPO")
    return Address(url, "hf", place, path=_inside("/".join(rest) or None, url), revision=revision)


def _inside(path: str | None, whole: str) -> str | None:
    if path is not None and any(p in {"", ".", ".."} for p in path.split("/")):
        raise AddressError(f"{whole!r} has a path with '.', '..' or '//': write it as folder/file")
    return path


def _selection(selectors: list[str], whole: str) -> Selection:
    found = Selection()
    for text in selectors:
        key, eq, value = text.partition("=")
        if eq and key in _SELECTORS:
            if not re.fullmatch(r"[01]" if key == "latent_axis" else r"\d{1,4}", value):
                wanted = "0 or 1" if key == "latent_axis" else "an integer of 1 to 4 digits"
                raise AddressError(f"{whole!r}: ::{key}= takes {wanted}; got {value!r}")
            if getattr(found, key) is not None:
                raise AddressError(f"{whole!r} contains ::{key}= twice: keep only one of them")
            found = replace(found, **{key: int(value)})  # type: ignore[arg-type]
        elif text and found.hook is None:
            found = replace(found, hook=text)
        else:
            raise AddressError(
                f"{whole!r}: after '::', write a hook, layer=N, model=N, source=N or latent_axis=0 or 1; got {text!r}"
            )
    return found


def _wanted(ok: object, whole: str, form: str) -> None:
    if not ok:
        raise AddressError(f"{whole!r} is incomplete: write {form}")
