"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import typer

from sae_geometry.kernels.settings import Device


class Format(StrEnum):
    """File formats of figures."""

    PNG = "png"
    PDF = "pdf"
    SVG = "svg"


PNG_AND_PDF = [Format.PNG, Format.PDF]


def _set(context: Any, option: Any, value: Any) -> Any:
    """Apply an option's value as a setting until the command ends."""
    from sae_geometry.kernels.settings import changed

    if value:
        try:
            context.with_resource(changed(**{str(option.name): value}))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    return value


Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Address (demo:NAME, a path, …); NAME=ADDRESS sets the run's label.")
]
FirstRun = Annotated[
    str, typer.Argument(metavar="A", help="Address of the first dictionary; NAME=ADDRESS sets its label.")
]
SecondRun = Annotated[str, typer.Argument(metavar="B", help="Address of the second dictionary.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print only errors on stderr.")]
OnDevice = Annotated[
    Device, typer.Option("--device", callback=_set, help="Device to compute on; auto uses a GPU if there is one.")
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory", metavar="SIZE", callback=_set,
        help="Memory limit per sweep, excluding inputs, such as 500MB or 2GB. [default: 256MB; 2GB on a GPU]",
    ),
]  # fmt: skip
Offline = Annotated[
    bool, typer.Option("--offline", callback=_set, help="Use only demos, local files and caches, not the network.")
]
Latents = Annotated[
    Literal["alive", "all"],
    typer.Option("--latents", help="'alive' drops latents known to be dead; 'all' keeps every latent."),
]
DropBad = Annotated[
    bool, typer.Option("--drop-bad", help="Drop and report latents whose decoder row is zero or not finite.")
]
LatentAxis = Annotated[
    int | None,
    typer.Option(
        "--latent-axis",
        min=0,
        max=1,
        help="Axis of the decoder that indexes latents, if a file does not say; or add ::latent_axis=1.",
    ),
]
Absolute = Annotated[bool, typer.Option("--absolute", help="Compare absolute instead of signed cosines.")]
On = Annotated[
    Literal["decoder", "encoder", "both"],
    typer.Option("--on", help="Compare decoder or encoder directions, or the mean of both cosines."),
]
Map = Annotated[
    str | None,
    typer.Option("--map", metavar="FILE", help="Linear map [d_in, d_out], applied before normalizing: FILE[::KEY]."),
]
MapSide = Annotated[
    Literal["first", "both"] | None,
    typer.Option(
        "--map-side",
        help="Map only the first dictionary (into the space of the others), or all dictionaries. [default: both if all "
        "may share a space, else first]",
    ),
]
Threshold = Annotated[
    float,
    typer.Option(
        "--threshold", metavar="X", min=-1, max=1, help="Similarity above which a one-to-one partner counts as shared."
    ),
]


class Shared(NamedTuple):
    """Options of every command that computes results."""

    latents: Latents = "alive"
    drop_bad: DropBad = False
    latent_axis: LatentAxis = None
    allow_mismatch: Annotated[
        bool,
        typer.Option("--allow-mismatch", help="Continue even if models or hook points differ; every output says so."),
    ] = False
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="DIR", help="Folder for the results. [default: a new folder named after the inputs]"
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier results in the folder.")] = False
    formats: Annotated[list[Format], typer.Option("--format", help="Figure format; may be given more than once.")] = (
        PNG_AND_PDF
    )
    as_json: AsJson = False
    quiet: Quiet = False
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print every check, number and definition.")] = False
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the estimated operations, bytes, memory and time, and exit."),
    ] = False
    memory: Memory = None
    device: OnDevice = "auto"
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE", help="Compute on Dask workers: local:N starts N processes, tcp://HOST:PORT is a scheduler."
        ),
    ] = None
    dask_load: Annotated[
        bool,
        typer.Option(
            "--dask-load", help="Let Dask workers load runs from their addresses, if they find the same weights there."
        ),
    ] = False
    offline: Offline = False
    log_wandb: Annotated[
        str | None,
        typer.Option(metavar="ENTITY/PROJECT", help="Also log the results as a new run of this W&B project."),
    ] = None
    unembed: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Show the tokens that latents promote in a model: folder or hf://org/model."
        ),
    ] = None
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE",
            help='Show labels: neuronpedia[:MODEL/SOURCE] or a CSV, Parquet or JSON Lines file with a "latent" column. '
            "NAME=TABLE applies to run NAME only. May be given more than once.",
        ),
    ] = None


def with_shared(*, without: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with the shared options, which it receives as its argument `shared`.

    Args:
        without: shared options to leave out; the command receives their default values.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "shared"]
        types = get_type_hints(Shared, include_extras=True)
        common = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[name])
            for name, default in Shared._field_defaults.items()
            if name not in without
        ]

        def wrapped(**values: Any) -> None:
            given = {p.name: values.pop(p.name) for p in common}
            command(**values, shared=Shared(**given))

        wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
        parameters = [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *common]
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate
