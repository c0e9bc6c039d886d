"""Load a command's inputs, and print its estimated cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast

from sae_geometry.cli.console import Speaker, print_json, say
from sae_geometry.cli.lifecycle import in_options
from sae_geometry.cli.options import Shared

if TYPE_CHECKING:
    from sae_geometry.dictionary import Dictionary


def load_all(addresses: list[str], speaker: Speaker, shared: Shared) -> list[Dictionary]:
    """Load dictionaries, and print the resolved address and the notes of each."""
    import warnings

    from sae_geometry.sources import OrientationWarning, load

    loaded = []
    for address in addresses:
        with warnings.catch_warnings(), speaker.bar() as progress:
            warnings.simplefilter("ignore", OrientationWarning)  # The notes printed below repeat this warning.
            address = with_axis(address, shared.latent_axis)
            d = load(address, shared.latents, drop_bad=shared.drop_bad, echo=speaker.resolved, progress=progress)
        for note in d.notes:
            speaker.note(f"{d.name}: {in_options(note)}")
        loaded.append(d)
    return loaded


def expand_all(addresses: list[str]) -> list[str]:
    """Return the addresses, with each pattern such as `layers.{0..11}` expanded."""
    from sae_geometry.sources.listing import expanded

    return [one for address in addresses for one in expanded(address)]


def map_of(
    first: Dictionary, file: str | None, side: Literal["first", "both"] | None
) -> tuple[Dictionary, Callable[[Dictionary], Dictionary]]:
    """Apply --map to the first dictionary; return the result and a function to apply to each of the others.

    That function applies the map if `side` is "both", or if it is None and the two dictionaries may share a space.
    """
    if file is None:
        if side is not None:
            raise ValueError("--map-side applies only with --map: add --map FILE, or leave out --map-side")
        return first, lambda d: d
    from sae_geometry.pairwise.mapping import mapped, may_share_a_space
    from sae_geometry.sources.vectors import read_matrix

    name, matrix = read_matrix(file)

    def follow(d: Dictionary) -> Dictionary:
        both = may_share_a_space(first, d) if side is None else side == "both"
        return mapped(d, matrix, name=name) if both else d

    return mapped(first, matrix, name=name), follow


def with_axis(address: str, latent_axis: int | None) -> str:
    """Return the address with the axis of --latent-axis appended, unless it already specifies an axis."""
    if latent_axis is None or "::latent_axis=" in address:
        return address
    return f"{address}::latent_axis={latent_axis}"


def say_plan(
    verb: str,
    dictionaries: list[Dictionary],
    as_json: bool,
    *,
    workers: int | None = None,
    bandwidth: float = 1.25e9,
    **how: Any,
) -> None:
    """Print the estimated cost of a command on stdout.

    Args:
        workers: number of Dask workers; if given, also print the cost on a cluster of this size.
        bandwidth: network bandwidth to the workers in bytes per second.
        how: further arguments of `estimate`.
    """
    from dataclasses import asdict

    from sae_geometry.cost.cluster_model import cluster_plan
    from sae_geometry.cost.estimate import estimate

    found, plan = estimate(dictionaries, cast(Any, verb), **how), None
    if workers is not None and not found.passes:
        raise ValueError(f"{verb} makes no sweeps that Dask workers could share; leave out --workers")
    if workers is not None:
        plan = cluster_plan(
            found.passes, dictionaries[0].d_in, n_dictionaries=len(dictionaries), workers=workers,
            rate=found.flops / 2 / found.seconds, bandwidth=bandwidth, whole_pairs=found.whole_pairs,
        )  # fmt: skip
    if as_json:
        said = {key: value for key, value in asdict(found).items() if key != "passes"}
        print_json(said | ({} if plan is None else {"cluster": asdict(plan)}))
    else:
        say(str(found) if plan is None else f"{found}\n{plan}")
