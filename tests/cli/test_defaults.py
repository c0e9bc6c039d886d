"""Tests that the commands and the functions agree: choices and defaults are written in both, so that --help is fast."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import typer
from matplotlib.figure import Figure

import sae_geometry as sg
from sae_geometry.cli.commands import COMMANDS
from sae_geometry.comparisons import flow, nearest
from sae_geometry.comparisons.by_index import CUTS
from sae_geometry.cost.jobs import VERBS, Verb
from sae_geometry.embedding.embedding import Embedding
from sae_geometry.kernels.blocks import DEFAULT_MEMORY, DEVICE_MEMORY
from sae_geometry.kernels.settings import Settings
from sae_geometry.matching import defaults
from sae_geometry.matching.shared import THRESHOLDS
from sae_geometry.nulls import default_turns
from sae_geometry.plots import check_colors, save_figure
from sae_geometry.plots.style import run_colors

NAMES = [name for group in COMMANDS.values() for name in group]
# A command's own names for parameters of its function. `absolute` is the opposite of `signed`.
RENAMED = {"terms": "n_terms", "fdr": "false_discovery_rate", "absolute": "signed"}
# Options that a command passes to other functions than its own, which have defaults and choices of their own.
ELSEWHERE: list[tuple[str, str, Callable[..., Any], str]] = [
    ("compare", "threshold", sg.compare_by_index, "threshold"),
    ("compare", "latents", sg.load, "latents"),
    ("compare", "drop_bad", sg.load, "drop_bad"),
    ("compare", "memory", Settings, "memory"),
    ("compare", "device", Settings, "device"),
    ("compare", "offline", Settings, "offline"),
    ("compare", "formats", sg.save, "formats"),
    ("compare", "overwrite", sg.save, "overwrite"),
    ("runs", "by", sg.similar_runs, "by"),
    ("tokens", "k", sg.read_tokens, "k"),
    ("umap", "threshold", Embedding.figures, "threshold"),
    ("umap", "style", Embedding.figures, "style"),
    ("umap", "regions_on", Embedding.with_regions, "on"),
    ("umap", "min_region_size", Embedding.with_regions, "min_size"),
]
DELIBERATE = {
    ("match", "thresholds"): "a list of options has no default; without any, the function's thresholds are used",
    ("match", "time_budget"): "without --time-budget there is no limit, which is infinity for the function",
    ("compare", "device"): "commands use a GPU if there is one; functions stay on the CPU unless the settings say so",
}
# Words that a function checks itself instead of stating them as a type; a test below reads them from its errors.
UNSTATED = {("umap", "style"), ("compare", "formats")}


def command_of(name: str) -> Callable[..., None]:
    """Return the function that defines a command."""
    return getattr(import_module(f"sae_geometry.cli.{name}"), name)


def function_of(name: str) -> Callable[..., Any] | None:
    """Return the public function of a command's name, or None."""
    found = getattr(sg, name, None)
    return found if inspect.isfunction(found) else None


def annotation_of(function: Callable[..., Any], parameter: str) -> Any:
    """Return a parameter's type; the others are not evaluated, because some exist only for type checkers."""
    written = inspect.signature(function).parameters[parameter].annotation
    return eval(written, vars(sys.modules[function.__module__])) if isinstance(written, str) else written


def choices(annotation: Any) -> set[str]:
    """Return the words that a type permits; an empty set if it permits any."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return {member.value for member in annotation}
    parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return set().union(*map(choices, parts))


def differences(
    command: Callable[..., Any], option: str, function: Callable[..., Any], parameter: str
) -> list[tuple[str, Any, Any]]:
    """Return how an option differs from a parameter: what differs, the option's and the parameter's."""
    ours = inspect.signature(command).parameters[option].default
    theirs = inspect.signature(function).parameters[parameter].default
    ours, theirs = (tuple(x) if isinstance(x, list) else x for x in (ours, theirs))
    if (option, parameter) == ("absolute", "signed"):
        ours = not ours
    words = choices(annotation_of(command, option)), choices(annotation_of(function, parameter))
    found = [("default", ours, theirs), ("choices", *words)]
    return [(what, a, b) for what, a, b in found if a != b or (what == "default" and type(a) is not type(b))]


def shared_parameters() -> list[tuple[str, str, Callable[..., Any], str]]:
    """Return every option of a command that is a parameter of the function of its name."""
    found = []
    for name in NAMES:
        if (function := function_of(name)) is not None:
            parameters = inspect.signature(function).parameters
            options = {o: RENAMED.get(o, o) for o in inspect.signature(command_of(name)).parameters}
            found += [(name, o, function, p) for o, p in options.items() if p in parameters]
    return found


SHARED = shared_parameters()


def test_the_commands_that_have_a_function_are_compared():
    assert {name for name in NAMES if function_of(name) is None} == {"tokens", "inspect", "demos", "cache", "doctor"}
    assert {name for name, *_ in SHARED} == {name for name in NAMES if function_of(name) is not None}
    assert len(SHARED) > 70


@pytest.mark.parametrize(
    ("name", "option", "function", "parameter"),
    [pytest.param(*case, id=f"{case[0]}-{case[1]}-{case[2].__name__}") for case in [*SHARED, *ELSEWHERE]],
)
def test_an_option_has_the_choices_and_default_of_its_parameter(name, option, function, parameter):
    found = differences(command_of(name), option, function, parameter)
    expected = {"default"} if (name, option) in DELIBERATE else {"choices"} if (name, option) in UNSTATED else set()
    assert {what for what, *_ in found} == expected, found


def test_the_verbs_that_can_be_estimated_are_those_with_a_dry_run():
    verbs = choices(annotation_of(command_of("estimate"), "verb"))
    assert verbs == set(get_args(Verb)) == set(VERBS)
    assert verbs == {name for name in NAMES if "dry_run" in inspect.signature(command_of(name)).parameters}


@pytest.mark.parametrize(
    ("name", "option", "refused"),
    [
        ("umap", "style", lambda word: run_colors(["a"], [None], word)),
        ("umap", "color", lambda word: check_colors([word], [])),
        ("compare", "formats", lambda word: save_figure(Figure(), Path("unwritten"), {}, [word])),
    ],
    ids=["style", "color", "formats"],
)
def test_the_words_of_an_option_are_those_that_an_error_lists(name, option, refused):
    with pytest.raises(ValueError, match="must be") as caught:
        refused("wrong")
    listed = str(caught.value).partition("; got")[0]
    words = choices(annotation_of(command_of(name), option))
    assert words
    assert set(re.findall(r"[\w-]+", listed.partition("must be")[2])) - {"a", "list", "of", "one", "or"} == words


SMALL, LARGE = defaults.SMALL, defaults.SMALL + 1
# What depends on the inputs has no default that typer could show, so the help states the numbers.
STATED = {
    ("compare", "cuts"): [f"{cut:g}" for cut in CUTS],
    ("compare", "memory"): [str(DEFAULT_MEMORY >> 20), str(DEVICE_MEMORY >> 30)],
    ("compare", "turns"): [str(default_turns(SMALL, 1)), f"{SMALL:,}", str(default_turns(LARGE, 1))],
    ("flow", "threshold"): [f"{flow.THRESHOLD[on]:g}" for on in (flow.WRITES, flow.READS)],
    ("match", "thresholds"): [f"{THRESHOLDS[i]:g}" for i in (0, 1, -1)],
    ("nearest", "turns"): [str(nearest._MOST_TURNS)],
    ("seeds", "matching"): [defaults.default_matching(SMALL), f"{SMALL:,}", defaults.default_matching(LARGE)],
}


@pytest.mark.parametrize(("name", "option"), STATED)
def test_the_help_states_the_default_that_the_function_uses(name, option):
    (said,) = [x.help for x in annotation_of(command_of(name), option).__metadata__]
    words = re.findall(r"\d+(?:[.,]\d+)*|[a-z]+", said.partition("[default:")[2])
    wanted = STATED[name, option]
    assert [word for word in words if word in wanted or word[0].isdigit()] == wanted


def _command(
    k: Annotated[int, typer.Option()] = 10,
    on: Annotated[Literal["decoder", "encoder"] | None, typer.Option()] = None,
    absolute: bool = False,
    ratio: float = 1.0,
) -> None: ...


def _function(k: int = 10, *, on: Literal["decoder", "both"] | None = None, signed: bool = False, ratio: int = 1): ...


def test_a_difference_would_be_seen():
    assert differences(_command, "k", _function, "k") == []
    assert differences(_command, "on", _function, "on") == [("choices", {"decoder", "encoder"}, {"decoder", "both"})]
    assert differences(_command, "absolute", _function, "signed") == [("default", True, False)]
    assert differences(_command, "ratio", _function, "ratio") == [("default", 1.0, 1)]
