"""Names of published dictionaries: the runs of the end-to-end paper, and SAELens's releases.

paper:e2e/LAYER/TYPE/ROLE        LAYER 2, 6, 10; TYPE local, e2e, e2e+ds; ROLE ce, l0, alive, seed0, seed1,
                                 figure-seed0, figure-seed1 (the pairs of the paper's cross-seed figure)
saelens:RELEASE/SAE_ID           any release if the sae-lens package is installed; otherwise the paper's six
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sae_geometry.sources.errors import AddressError, SourceError

CATALOG_FILE = Path(__file__).parent.parent / "data" / "catalog" / "e2e_runs.json"
_TYPES = {"downstream": "e2e+ds"}
_RENAMED = {"neuronpedia": "neuronpedia-org"}  # This organization was renamed.
_MAX_LISTED = 8


@dataclass(frozen=True)
class PaperRun:
    """A run of the end-to-end paper: its weights on W&B, and hf:// addresses of copies, which are tried in order."""

    address: str
    wandb: str
    hook: str
    mirrors: tuple[str, ...]


@cache
def paper_runs() -> dict[str, PaperRun]:
    """Return all runs of the end-to-end paper, by address."""
    table, mirrors = _table(), dict[str, tuple[str, ...]]()
    for run in table["runs"]:
        mirrors[run["wandb"]] = mirrors.get(run["wandb"]) or _mirrors(run)
    hooks = {run["layer"]: run["hook"] for run in table["runs"]}
    file = table["runs"][0]["file"]
    found: dict[str, PaperRun] = {}

    def add(layer: int, kind: str, role: str, run: str) -> None:
        address = f"paper:e2e/{layer}/{_TYPES.get(kind, kind)}/{role}"
        found[address] = PaperRun(address, f"wandb:{run}#{file}", hooks[layer], mirrors.get(run, ()))

    for run in table["runs"]:
        add(run["layer"], run["type"], run["role"].removeprefix("similar_"), run["wandb"])
    for pair in table["seed_pairs"]:
        for k in (0, 1):
            place = (pair["layer"], pair["type"])
            first = f"paper:e2e/{place[0]}/{_TYPES.get(place[1], place[1])}/seed{k}"
            if first not in found:
                add(*place, f"seed{k}", pair[f"seed{k}"])
            if pair["layer"] == 6:  # The cross-seed figure shows the last pair of each type at layer 6.
                add(*place, f"figure-seed{k}", pair[f"seed{k}"])
    return found


def paper_run(place: str) -> PaperRun:
    """Return the run of the paper that is called, for example, "e2e/6/local/ce"."""
    address = f"paper:{place.replace('/downstream/', '/e2e+ds/')}"
    runs = paper_runs()
    if address in runs:
        return runs[address]
    parts = address.split("/")
    near = [a for a in runs if a.split("/")[:3] == parts[:3]] or [a for a in runs if a.split("/")[2:3] == parts[2:3]]
    shown = ", ".join((near or sorted(runs))[:_MAX_LISTED])
    raise AddressError(f"the catalog has no {address}; it has {shown}{' …' if len(near or runs) > _MAX_LISTED else ''}")


def mirrors_of(run: str) -> tuple[str, ...]:
    """Return hf:// addresses of copies of the W&B run "entity/project/run"; empty if the catalog does not list it."""
    known = (r for r in paper_runs().values() if r.wandb.removeprefix("wandb:").partition("#")[0] == run)
    return next((r.mirrors for r in known if r.mirrors), ())


def neuronpedia_source(address: str, saelens: str | None = None) -> str | None:
    """Return Neuronpedia's "model/source" for a run of the end-to-end paper or an SAE that sae-lens lists, or None."""
    plain = _without_revision(address.partition("::")[0])
    known = _paper_sources()
    for place in (plain, plain.rpartition("/")[0]):
        if place in known:
            return known[place]
    if saelens is not None:
        release, _, sae_id = saelens.partition("/")
        for sae in _installed_release(release)[1]:
            if sae_id in (str(sae["id"]), str(sae.get("path"))) and isinstance(sae.get("neuronpedia"), str):
                return str(sae["neuronpedia"])
    return None


def saelens_address(place: str) -> str:
    """Return the hf:// address of the SAE that is called "release/sae_id" in SAELens."""
    release, _, sae_id = place.partition("/")
    repo, saes = _installed_release(release)
    paths = {str(s["id"]): str(s.get("path") or s["id"]) for s in saes}
    if not repo:
        repo, paths = _paper_releases().get(release, ("", {}))
    if not repo:
        hint = "" if _installed_catalog() else "; other releases need the sae-lens package, which is not installed"
        raise AddressError(f"no release {release!r}; known are {', '.join(sorted(_paper_releases()))}{hint}")
    path = paths.get(sae_id) or (sae_id if sae_id in paths.values() else None)
    if path is None:
        shown = ", ".join(list(paths)[:_MAX_LISTED]) + (" …" if len(paths) > _MAX_LISTED else "")
        raise AddressError(f"release {release!r} has no SAE {sae_id!r}; it has {shown}")
    return f"hf://{repo}/{path}"


def _mirrors(run: dict[str, Any]) -> tuple[str, ...]:
    found = []
    if saelens := run.get("hf_saelens"):
        owner, _, name = saelens["repo"].partition("/")
        found += [f"hf://{who}/{name}/{saelens['path']}" for who in (owner, _RENAMED.get(owner)) if who]
    if apollo := run.get("hf_apollo"):
        found.append(f"hf://{apollo['repo']}@{apollo['revision_seen']}/{apollo['file']}")
    return tuple(found)


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(CATALOG_FILE.read_text(encoding="utf-8"))
    return table


def _paper_releases() -> dict[str, tuple[str, dict[str, str]]]:
    """Return the repository, and the path of the SAE at each hook point, of the paper's releases in SAELens."""
    releases: dict[str, tuple[str, dict[str, str]]] = {}
    for run in _table()["runs"]:
        if saelens := run.get("hf_saelens"):
            _, paths = releases.setdefault(saelens["release"], (saelens["repo"], {}))
            paths[run["hook"]] = saelens["path"]
    return releases


@cache
def _paper_sources() -> dict[str, str]:
    """Return Neuronpedia's "model/source" for every address of the paper's published runs.

    Names follow SAELens's repositories: `gpt2-small__res_scl-ajt/6-res_scl-ajt` becomes `gpt2-small/6-res_scl-ajt`.
    A run that was published under two roles has the source of the first role.
    """
    found: dict[str, str] = {}
    for run in _table()["runs"]:
        if saelens := run.get("hf_saelens"):
            model = saelens["repo"].partition("/")[2].partition("__")[0]
            for place in (f"wandb:{run['wandb']}#{_table()['runs'][0]['file']}", *_mirrors(run)):
                found.setdefault(_without_revision(place), f"{model}/{saelens['path']}")
    return found


def _without_revision(address: str) -> str:
    return re.sub(r"^(hf://[^/@]+/[^/@]+)@[^/]+", r"\1", address)


def _installed_release(release: str) -> tuple[str, list[dict[str, Any]]]:
    """Return a release's repository ("" if unknown) and SAEs as listed by the installed sae-lens."""
    entry = _installed_catalog().get(release)
    repo, saes = (entry.get("repo_id"), entry.get("saes")) if isinstance(entry, dict) else (None, None)
    listed = [s for s in saes if isinstance(s, dict) and "id" in s] if isinstance(saes, list) else []
    return repo if isinstance(repo, str) else "", listed


@cache
def _catalog_at(path: Path) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        table = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SourceError(f"the sae-lens catalog {path} cannot be read ({type(error).__name__})") from error
    return table if isinstance(table, dict) else {}


def _installed_catalog() -> dict[str, Any]:
    """Return the releases in sae-lens's own file without importing sae-lens, which is slow; empty if not installed."""
    spec = importlib.util.find_spec("sae_lens")
    places = list(spec.submodule_search_locations or []) if spec else []
    return _catalog_at(Path(places[0]) / "pretrained_saes.yaml") if places else {}
