"""Tests that everything but a plain array of numbers is refused in one sentence, and that frequencies are shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from limited import limited

import sae_geometry as sg
from sae_geometry import Dictionary

W = np.arange(1.0, 13.0).reshape(4, 3)
V = np.array([0.0, 0.25, 0.5, 1.0])


def quantized(a: np.ndarray) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.tensor(a).float(), 0.1, 0, torch.qint8)


NOT_PLAIN: dict[str, Callable[[np.ndarray], Any]] = {
    "structured": lambda a: np.zeros(a.shape, [("x", "f4"), ("y", "f4")]),
    "text": lambda a: a.astype(str),
    "bytes": lambda a: a.astype("S4"),
    "objects": lambda a: a.astype(object),
    "dates": lambda a: a.astype("M8[s]"),
    "extended precision": lambda a: a.astype(np.longdouble),
    "ragged": lambda a: [[1.0], [1.0, 2.0]],
    "nothing": lambda a: {},
    "whole numbers beyond 64 bits": lambda a: [[10**30] * a.shape[-1]] * len(a),
    "whole numbers of 2^63": lambda a: np.full(a.shape, 1 << 63, dtype=np.uint64),
    "a tensor of them": lambda a: torch.full(a.shape, 2**64 - 1, dtype=torch.uint64),
    "sparse": lambda a: torch.tensor(a).to_sparse(),
    "quantized": quantized,
    "without memory": lambda a: torch.tensor(a).to("meta"),
    "nested": lambda a: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "other byte order": lambda a: a.astype(">f8"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_what_is_not_a_plain_array_is_one_sentence(kind: str) -> None:
    made = NOT_PLAIN[kind]
    calls: list[Callable[[], object]] = [
        lambda: Dictionary.from_decoder(made(W), latent_axis=0),
        lambda: Dictionary.from_decoder(W, latent_axis=0, encoder=made(W)),
        lambda: sg.as_dictionary({"W_dec": made(W)}),
        lambda: Dictionary.from_decoder(W, latent_axis=0).select(made(V)),
    ]
    calls += [
        lambda name=name: Dictionary.from_decoder(W, latent_axis=0, **{name: made(V)})
        for name in ("encoder_bias", "frequency", "alive")
    ]
    said = r"dense array of real numbers|must be|entries|two axes|one-dim"
    said += "|cannot make a dictionary from dict" if kind == "nothing" else ""
    for call in calls:
        with pytest.raises(ValueError, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)


PETABYTES: dict[str, Callable[[], Any]] = {
    "a row": lambda: np.broadcast_to(W[0], (1 << 48, 3)),
    "a number": lambda: np.broadcast_to(np.int64(1), (1 << 30, 1 << 20)),
    "a row backwards": lambda: np.broadcast_to(W[0, ::-1], (1 << 48, 3)),
    "a tensor": lambda: torch.ones(3).expand(1 << 48, 3),
    "columns": lambda: torch.ones(4, 1, dtype=torch.int8).expand(4, 1 << 48),
    "eight bits": lambda: torch.ones(1).to(torch.float8_e5m2).expand(1 << 40, 3),
    "windows": lambda: torch.ones(1 << 16).as_strided((1 << 15, 1 << 15), (1, 1)),
}


@pytest.mark.parametrize("kind", PETABYTES)
def test_a_few_numbers_repeated_to_petabytes_are_one_sentence(kind: str) -> None:
    values = PETABYTES[kind]()
    calls: list[Callable[[], object]] = [
        lambda: sg.as_dictionary(values),
        lambda: sg.as_dictionary({"W_dec": values}),
        lambda: Dictionary.from_decoder(values, latent_axis=0),
        lambda: Dictionary.from_decoder(W, latent_axis=0, encoder=values, encoder_latent_axis=1),
        lambda: Dictionary.from_decoder(W, latent_axis=0, alive=values),
        lambda: sg.nearest(values, [W]),
        lambda: sg.mapped(W, values, name="m"),
    ]
    for call in calls:
        with limited(), pytest.raises(ValueError, match=r"of shape \(.* repeats [\d,]+ values? by .*or a copy"):
            call()


def test_a_row_may_be_repeated_within_reason_and_be_read_only() -> None:
    torch.set_warn_always(True)  # torch warns once per process otherwise.
    assert sg.as_dictionary(np.broadcast_to(W[0], (1000, 3))).n_latents == 1000
    assert sg.as_dictionary(torch.ones(1).expand(20, 3)).n_latents == 20
    torch.set_warn_always(False)


class OnAnotherDevice:
    """Array of a library that returns its values only on request."""

    shape, dtype = (4, 3), "float32"

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("ask for a copy\nfirst")


@pytest.mark.parametrize("kind", ["names", "table", "list", "view", "device"])
def test_objects_that_hold_no_numbers_are_one_sentence(kind: str) -> None:
    table: dict[str, Any] = {"W_dec": W}
    table["self"] = table
    listed: list[Any] = [1.0]
    listed[0] = listed
    made: Any = {
        "names": [["a", "b"]], "table": table, "list": listed, "view": memoryview(W), "device": OnAnotherDevice(),
    }[kind]  # fmt: skip
    for given in (made, [made], {"W_dec": made}):
        with pytest.raises(
            ValueError, match=r"contains itself|cannot make a dictionary|dense array|holds no decoder"
        ) as caught:
            sg.as_dictionary(given)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        W[::-1],
        W.astype(np.float16),
        W.astype(np.uint16),
        torch.tensor(W).to(torch.float8_e4m3fn),
        W.tolist(),
        np.ma.array(W),
    ],
    ids=["reversed", "half", "unsigned", "fp8", "lists", "nothing masked"],
)
def test_other_plain_arrays_are_taken(values: Any) -> None:
    assert Dictionary.from_decoder(values, latent_axis=0, encoder=values).n_latents == 4


def test_a_mask_is_not_dropped() -> None:
    masked = np.ma.array(W, mask=W > 11)
    for call in (
        lambda: Dictionary.from_decoder(masked, latent_axis=0),
        lambda: Dictionary.from_decoder(W, latent_axis=0, encoder=masked),
        lambda: sg.as_dictionary(masked),
        lambda: sg.as_dictionary({"W_dec": W, "frequency": np.ma.array(V, mask=[1, 0, 0, 0])}),
        lambda: Dictionary.from_decoder(W, latent_axis=0, frequency=np.ma.array(V, mask=[1, 0, 0, 0])),
        lambda: Dictionary.from_decoder(W, latent_axis=0, alive=np.ma.array([0, 1], mask=[1, 0])),
    ):
        with pytest.raises(ValueError, match=r"has 1 masked value"):
            call()


@pytest.mark.parametrize("wrong", [float("nan"), -0.1, 1.5, float("inf"), 1e300])
def test_a_frequency_is_a_share(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"0…1; latents 2 have"):
        Dictionary.from_decoder(W, latent_axis=0, frequency=[0.0, 1.0, wrong, 0.5])


@pytest.mark.parametrize(
    ("values", "note", "n_dead"),
    [
        ([0.0, 0.5, 1.0, 0.25], None, 1),
        ([0.0, 50.0, 100.0, 25.0], "frequency ranges from 0 to 100, outside 0…1", 1),
        ([-1.0, 0.5, 1.0, 0.25], "frequency ranges from -1 to 1, outside 0…1", 1),
        ([float("nan"), 0.5, 1.0, 0.25], "frequency contains NaN or infinite frequencies", None),
    ],
)
def test_a_file_s_frequencies_outside_0_to_1_are_named(
    values: list[float], note: str | None, n_dead: int | None, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    save_file({"W_dec": torch.tensor(W), "frequency": torch.tensor(values)}, tmp_path / "x.safetensors")
    d = sg.load(tmp_path / "x.safetensors", "all", latent_axis=0)
    assert d.alive.n_dead == n_dead
    assert (d.frequency is None) == (note is not None)
    assert [n for n in d.notes if "frequency" in n and note and n.startswith(note)] or note is None


def test_a_dictionary_of_no_directions_at_all() -> None:
    with pytest.raises(ValueError, match=r"all 4 decoder rows of .* are .* none has a direction"):
        Dictionary.from_decoder(W * 0, latent_axis=0, drop_bad=True)
