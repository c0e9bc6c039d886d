"""Resolve addresses of any scheme to files on disk, which are downloaded if necessary."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from sae_geometry.sources.address import Address, parse
from sae_geometry.sources.bundle import Bundle, Context
from sae_geometry.sources.catalog import mirrors_of, paper_run, saelens_address
from sae_geometry.sources.demo import bundle_demo
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.http import RefusedError, UnreachableError
from sae_geometry.sources.huggingface.repo import bundle_huggingface
from sae_geometry.sources.local import bundle_local
from sae_geometry.sources.wandb.runs import bundle_wandb


def parse_address(address: str | Path) -> Address:
    """Parse an address given as a string or path; a `Path` is always local."""
    if isinstance(address, Path):
        return Address(str(address), "local", str(address))
    return parse(address, lambda text: os.path.exists(os.path.expanduser(text)))  # exists() never raises.


def resolve(address: Address, context: Context) -> Bundle:
    """Return the checkpoint at an address, after downloading its files if necessary."""
    if address.other is not None:
        context.say(f"{address.typed} is read as a local path; it could also mean {address.other}")
    match address.scheme:
        case "local":
            return bundle_local(address)
        case "demo":
            return bundle_demo(address.place)
        case "wandb":
            return _run_or_hint(address, context)
        case "hf":
            return bundle_huggingface(address, context)
        case "saelens":
            spelled = saelens_address(address.place)
            context.say(f"saelens:{address.place} is {spelled}")
            bundle = bundle_huggingface(parse(spelled), context)
            return replace(bundle, metadata={**bundle.metadata, "saelens": address.place})
        case "paper":
            return _paper(address, context)


def _run_or_hint(address: Address, context: Context) -> Bundle:
    try:
        return bundle_wandb(address, context)
    except (RefusedError, UnreachableError) as error:
        if mirrors := mirrors_of(address.place):
            error.args = (f"{error}; the same SAE is at {mirrors[0]}",)
        raise


def _paper(address: Address, context: Context) -> Bundle:
    """Return the checkpoint of a run of the paper from W&B or, if W&B fails, from a copy on Hugging Face."""
    run = paper_run(address.place)
    known = {"paper": run.address, "paper_run": run.wandb}
    reasons = []
    for place in (run.wandb, *run.mirrors):
        parsed = parse(place)
        try:
            bundle = bundle_wandb(parsed, context) if parsed.scheme == "wandb" else bundle_huggingface(parsed, context)
        except SourceError as error:
            reasons.append(str(error))
            context.say(f"{place} is not available: {error}")
            continue
        context.say(f"{run.address} is {place}")
        hook = {"hook_name": run.hook, "model_name": "gpt2-small"} if parsed.scheme == "hf" else {}
        return replace(bundle, config={**hook, **bundle.config}, metadata={**bundle.metadata, **known})
    raise SourceError(f"{run.address} is not available from any source: {'; '.join(reasons)}")
