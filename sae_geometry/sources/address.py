"""Addresses: where a dictionary lives, as one line of text. Parsing only; nothing here touches disk or network.

[NAME=] place [::selection]

place       demo:local-seed0
            wandb:entity/project/run[#file]        or bare entity/project/run, or a pasted wandb.ai URL
            hf://org/repo[@revision][/path]        or bare org/repo, or a pasted huggingface.co URL
            saelens:release/sae_id                 split at the first slash
            paper:e2e/6/local/ce                   a run of the end-to-end paper, see `catalog`
            ./folder/file.pt, ~/file.pt, /file.pt  or anything that exists
selection   a hook ("blocks.6.hook_resid_pre"), or layer=2, model=1, source=0
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import unquote, urlsplit

from sae_geometry.io.redaction import without_secrets
from sae_geometry.sources.errors import AddressError

Scheme = Literal["local", "demo", "wandb", "hf", "saelens", "paper"]

_LABEL = re.compile(r"([\w][\w .+\-]*)=(.+)", re.DOTALL)
_PART = re.compile(r"[\w][\w.\-]*")
_WEIGHTS_SUFFIX = (".pt", ".pth", ".bin", ".safetensors", ".npz", ".npy")
_SELECTORS = ("layer", "model", "source")


@dataclass(frozen=True)
class Selection:
    """Which of several dictionaries in one file is meant.

    Attributes:
        hook: the hook point, as the file writes it or with dots.
        layer: one output layer of a multi-layer decoder.
        model: one model of a crosscoder.
        source: the layer that a cross-layer transcoder's latents read from.
    """

    hook: str | None = None
    layer: int | None = None
    model: int | None = None
    source: int | None = None

    def __str__(self) -> str:
        parts = [f"::{self.hook}"] if self.hook else []
        parts += [f"::{k}={v}" for k in _SELECTORS if (v := getattr(self, k)) is not None]
        return "".join(parts)


@dataclass(frozen=True)
class Address:
    """A parsed address.

    Attributes:
        typed: the text as it was given.
        scheme: which source it belongs to.
        place: what the source looks up: a path, a demo name, "entity/project/run", "org/repo", "release/sae_id".
        path: the file inside a run or repository; None for the source's own choice.
        revision: a Hugging Face branch, tag or commit; None for the default branch.
        label: the label set by `NAME=`.
        selection: what follows `::`.
    """

    typed: str
    scheme: Scheme
    place: str
    path: str | None = None
    revision: str | None = None
    label: str | None = None
    selection: Selection = Selection()

    def __str__(self) -> str:
        """The canonical spelling, without the label."""
        if self.scheme == "hf":
            body = f"hf://{self.place}" + (f"@{self.revision}" if self.revision else "")
            body += f"/{self.path}" if self.path else ""
        elif self.scheme == "local":
            body = self.place
        else:
            body = f"{self.scheme}:{self.place}" + (f"#{self.path}" if self.path else "")
        return body + str(self.selection)


def parse(text: str, exists: Callable[[str], bool] = lambda _: False) -> Address:
    """The address that `text` spells.

    Args:
        text: what the user typed.
        exists: says whether a local path exists; only asked about text without a scheme.

    Raises:
        AddressError: it spells nothing, or two things at once, or holds a password.

    Example:
        >>> from sae_geometry.sources.address import parse
        >>> str(parse("mine=https://wandb.ai/sparsify/gpt2/runs/d8vgjnyc"))
        'wandb:sparsify/gpt2/d8vgjnyc'
    """
    stripped = text.strip()
    if "://" in stripped:
        if re.search(r"^(?!hf://[^\s/?#:]*@)[^\s]*://[^\s/?#]*@", stripped):  # hf://org@revision lacks a name instead
            raise AddressError(
                f"{without_secrets(stripped)!r} has a user name or a password in it, which an address must not: leave "
                "it out, and sign in with WANDB_API_KEY, `wandb login` or HF_TOKEN"
            )
        if not stripped.startswith("hf://"):  # what is pasted may have a key in its query
            text = stripped = without_secrets(stripped)
    if not stripped or "\0" in stripped:
        raise AddressError(f"{text!r} is not an address: give a path, demo:NAME, wandb:…, hf://… or a pasted URL")
    label, rest = None, stripped
    if (named := _LABEL.fullmatch(stripped)) is not None:
        if exists(stripped):
            raise AddressError(
                f"{stripped!r} is a path here and could also be a label: write ./{stripped} for the path"
            )
        label, rest = named[1].strip(), named[2].strip()
    body, *selectors = rest.split("::")
    if not body:
        raise AddressError(f"{text!r} names nothing before '::'")
    address = _place(body, exists)
    return replace(address, typed=stripped, label=label, selection=_selection(selectors, stripped))


def _place(body: str, exists: Callable[[str], bool]) -> Address:
    if re.match(r"https?://", body):
        return _pasted(body)
    if body.startswith("hf:"):
        return _hugging_face(body)
    if (scheme := re.match(r"(wandb|demo|saelens|paper):", body)) is not None:
        rest = body[scheme.end() :]
        match scheme[1]:
            case "wandb":
                return _wandb(rest, body)
            case "demo":
                return Address(body, "demo", _wanted(rest, body, "demo:NAME, listed by sae-geometry demos"))
            case "paper":
                return Address(body, "paper", _wanted(rest, body, "paper:e2e/LAYER/TYPE/ROLE"))
            case _:
                release, _, sae_id = rest.partition("/")
                _wanted(release and sae_id, body, "saelens:RELEASE/SAE_ID")
                return Address(body, "saelens", rest)
    return _bare(body, exists)


def _bare(body: str, exists: Callable[[str], bool]) -> Address:
    if body.startswith(("./", "../", "/", "~", ".\\", "..\\")) or body in {".", ".."}:
        return Address(body, "local", body)
    here = exists(body)
    parts = body.partition("#")[0].split("/")
    remote = ""
    if all(_PART.fullmatch(p) for p in parts) and not parts[-1].lower().endswith(_WEIGHTS_SUFFIX):
        remote = {2: f"hf://{body}", 3: f"wandb:{body}"}.get(len(parts), "")
    if here and remote:
        raise AddressError(f"{body!r} is a path here and could also be {remote}: write ./{body} or {remote}")
    if remote:
        return _place(remote, exists)
    if here or "/" in body or body.lower().endswith(_WEIGHTS_SUFFIX):
        return Address(body, "local", body)
    raise AddressError(
        f"{body!r} is neither a path that exists nor an address: write demo:NAME, wandb:entity/project/run, "
        "hf://org/repo, saelens:release/sae_id or a path"
    )


def _wandb(rest: str, whole: str) -> Address:
    run, _, file = rest.partition("#")
    parts = run.strip("/").split("/")
    if len(parts) == 4 and parts[2] == "runs":
        del parts[2]
    _wanted(len(parts) == 3 and all(_PART.fullmatch(p) for p in parts), whole, "wandb:entity/project/run[#file]")
    return Address(whole, "wandb", "/".join(parts), path=file or None)


def _hugging_face(body: str) -> Address:
    rest = re.sub(r"^hf:(//)?", "", body).strip("/")
    head = re.fullmatch(r"([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?", rest)
    ok = head is not None and all(_PART.fullmatch(p) for p in head[1].split("/"))
    _wanted(ok, body, "hf://org/repo[@revision][/path]")
    assert head is not None
    revision = unquote(head[2]) if head[2] else None
    return Address(body, "hf", head[1], path=_inside(head[3], body), revision=revision)


def _pasted(url: str) -> Address:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise AddressError(f"{url!r} is not a URL ({error}): copy it from the browser once more") from None
    host = (parts.hostname or "").removeprefix("www.")
    path = [unquote(p) for p in parts.path.strip("/").split("/")]
    if host == "wandb.ai":
        tidy = [p for i, p in enumerate(path) if not (i == 2 and p == "runs")]
        file = "/".join(tidy[4:]) if len(tidy) > 4 and tidy[3] == "files" else None
        _wanted(len(tidy) >= 3, url, "https://wandb.ai/ENTITY/PROJECT/runs/RUN")
        return _wandb("/".join(tidy[:3]) + (f"#{file}" if file else ""), url)
    if host in {"huggingface.co", "hf.co"}:
        revision = path[3] if len(path) > 3 and path[2] in {"tree", "blob", "resolve", "commit"} else None
        spelled = "hf://" + "/".join(path[:2]) + (f"@{revision}" if revision else "")
        inside = "/".join(path[4:]) if revision else ""
        return replace(_hugging_face(spelled + (f"/{inside}" if inside else "")), typed=url)
    raise AddressError(f"{url!r} is on neither wandb.ai nor huggingface.co: download the file and give its path")


def _inside(path: str | None, whole: str) -> str | None:
    if path is not None and any(p in {"", ".", ".."} for p in path.split("/")):
        raise AddressError(
            f"{whole!r} has a path that is not a plain one: write folder/file, without '.', '..' or '//'"
        )
    return path


def _selection(selectors: list[str], whole: str) -> Selection:
    found = Selection()
    for text in selectors:
        key, eq, value = text.partition("=")
        if eq and key in _SELECTORS:
            if not re.fullmatch(r"\d{1,4}", value):
                raise AddressError(f"{whole!r}: ::{key}= takes a whole number, got {value!r}")
            found = replace(found, **{key: int(value)})  # type: ignore[arg-type]
        elif text and found.hook is None:
            found = replace(found, hook=text)
        else:
            raise AddressError(f"{whole!r}: after '::' comes one hook, or layer=N, model=N, source=N; got {text!r}")
    return found


def _wanted(ok: object, whole: str, form: str) -> str:
    if not ok:
        raise AddressError(f"{whole!r} is incomplete: write {form}")
    return str(ok)
