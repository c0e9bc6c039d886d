"""Tests of addresses in every spelling."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_geometry.sources.address import Address, Selection, parse
from sae_geometry.sources.errors import AddressError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("demo:local-seed0", "demo:local-seed0"),
        ("wandb:a/b/c", "wandb:a/b/c"),
        ("wandb:a/b/runs/c#samples_1.pt", "wandb:a/b/c#samples_1.pt"),
        ("a/b/c", "wandb:a/b/c"),
        ("a/b/c#f.pt", "wandb:a/b/c#f.pt"),
        ("https://wandb.ai/a/b/runs/c", "wandb:a/b/c"),
        ("https://wandb.ai/a/b/runs/c/overview?nw=x", "wandb:a/b/c"),
        ("https://wandb.ai/a/b/runs/c/files/x/samples_1.pt", "wandb:a/b/c#x/samples_1.pt"),
        ("http://www.wandb.ai/a/b/c", "wandb:a/b/c"),
        ("wandb:a/b/n:v3", "wandb:a/b/n:v3"),
        ("a/b/n:latest#x/y.pt", "wandb:a/b/n:latest#x/y.pt"),
        ("wandb:a/b/artifacts/model/n/v3", "wandb:a/b/n:v3"),
        ("wandb:a/b/artifacts/model/n:v3", "wandb:a/b/n:v3"),
        ("wandb-artifact://a/b/n:v3", "wandb:a/b/n:v3"),
        ("https://wandb.ai/a/b/artifacts/model/n/v3", "wandb:a/b/n:v3"),
        ("https://wandb.ai/a/b/artifacts/model/n/best/lineage?x=y", "wandb:a/b/n:best"),
        ("https://wandb.ai/a/b/artifacts/model/n/v3/files/x/y.pt", "wandb:a/b/n:v3#x/y.pt"),
        ("huggingface.co/a/b/tree/main/x", "hf://a/b@main/x"),
        ("www.wandb.ai/a/b/runs/c", "wandb:a/b/c"),
        ("https://app.wandb.ai/a/b/runs/c", "wandb:a/b/c"),
        ("https://wandb.ai/a/my%20project/runs/c", "wandb:a/my project/c"),
        ("HTTPS://Huggingface.co/a/b", "hf://a/b"),
        ("hf://a/b", "hf://a/b"),
        ("hf://datasets/a/b@v1/x/y.pt", "hf://datasets/a/b@v1/x/y.pt"),
        ("hf://a/b@refs/pr/3/x/y.pt", "hf://a/b@refs/pr/3/x/y.pt"),
        ("https://huggingface.co/a/b/tree/refs%2Fpr%2F3", "hf://a/b@refs/pr/3"),
        ("https://huggingface.co/a/b/blob/refs%2Fpr%2F3/x/y.pt", "hf://a/b@refs/pr/3/x/y.pt"),
        ("https://huggingface.co/a/b/blob/refs/pr/3/x/y.pt", "hf://a/b@refs/pr/3/x/y.pt"),
        ("https://huggingface.co/a/b/tree/refs%2Fconvert%2Fparquet/x", "hf://a/b@refs/convert/parquet/x"),
        ("https://huggingface.co/a/b/tree/my%2Fbranch/x", "hf://a/b@my%2Fbranch/x"),
        ("https://huggingface.co/datasets/a/b/resolve/main/x.pt", "hf://datasets/a/b@main/x.pt"),
        ("https://huggingface.co/datasets/a/b", "hf://datasets/a/b"),
        ("hf:a/b", "hf://a/b"),
        ("a/b", "hf://a/b"),
        ("hf://a/b@v1/x/y.pt", "hf://a/b@v1/x/y.pt"),
        ("hf://a/b@refs%2Fpr%2F1/x", "hf://a/b@refs/pr/1/x"),
        ("https://huggingface.co/a/b", "hf://a/b"),
        ("https://huggingface.co/a/b/tree/main/x/y", "hf://a/b@main/x/y"),
        ("https://huggingface.co/a/b/resolve/abc/x.pt?download=true", "hf://a/b@abc/x.pt"),
        ("saelens:rel/blocks.6.hook/x", "saelens:rel/blocks.6.hook/x"),
        ("paper:e2e/6/local/ce", "paper:e2e/6/local/ce"),
        ("./x", "./x"),
        ("~/x", "~/x"),
        ("/x/y", "/x/y"),
        ("some/deep/er/path", "some/deep/er/path"),
        ("runs/x/samples_1.pt", "runs/x/samples_1.pt"),
        ("x.safetensors", "x.safetensors"),
        ("last.ckpt", "last.ckpt"),
        ("file:///x/a%20b.pt", "/x/a b.pt"),
        ("./x::blocks.6.hook_resid_pre", "./x::blocks.6.hook_resid_pre"),
        ("./x::layer=2", "./x::layer=2"),
        ("./x::latent_axis=1", "./x::latent_axis=1"),
        ("./x::source=1::layer=2", "./x::layer=2::source=1"),
        ("wandb:a/b/c::blocks.6.h", "wandb:a/b/c::blocks.6.h"),
    ],
)
def test_spellings(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical
    labelled = parse(f"my run={text}")
    assert (labelled.label, str(labelled)) == ("my run", canonical)


@pytest.mark.parametrize("text", ["<{}>", '"{}"', "[the run]({})", " '{}' "])
def test_a_link_with_the_marks_around_it(text: str) -> None:
    assert str(parse(text.format("https://wandb.ai/a/b/runs/c?nw=x"))) == "wandb:a/b/c"


def test_what_exists_is_local() -> None:
    assert parse("x", lambda _: True).scheme == "local"
    assert parse("a/b/c/d", lambda _: True).scheme == "local"
    assert parse("demo:x", lambda _: True).scheme == "demo"


@pytest.mark.parametrize(
    ("text", "other"),
    [("a/b/c", "wandb:a/b/c"), ("a/b", "hf://a/b"), ("a=b", "b under the label a"), ("a/b.pt", None), ("a", None)],
)
def test_a_path_that_exists_is_that_path_whatever_else_it_could_be(text: str, other: str | None) -> None:
    found = parse(text, lambda asked: asked == text)
    assert (found.scheme, found.place, found.label, found.other) == ("local", text, None, other)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not an address"),
        ("   ", "not an address"),
        ("x\0y", "not an address"),
        ("nothing", "neither an existing path nor an address"),
        ("wandb:a/b", "write wandb:entity/project/run"),
        ("wandb:a/b/c/d/e", "write wandb:entity/project/run"),
        ("wandb:a/../c", "write wandb:entity/project/run"),
        ("hf://a", r"write hf://org/repo"),
        ("hf://datasets/a", r"write hf://org/repo"),
        ("hf://spaces/a/b", r"is a space \(an app\)"),
        ("https://huggingface.co/datasets/a/b/viewer/x/y", "its files are at hf://datasets/a/b"),
        ("https://wandb.ai/a/b", r"is a project: .*sae-geometry runs a/b"),
        (
            "https://wandb.ai/a/b/runs",
            "is the list of a project's runs, not a run: give one of its runs, wandb:a/b/RUN",
        ),
        ("https://wandb.ai/a/b/sweeps/ab12cd34", "is a sweep, not a run"),
        ("https://wandb.ai/a/b/workspace?nw=nwuser", "is a workspace, not a run"),
        ("https://wandb.ai/a/b/reports/Title--Vmlldzo1", "is a report, not a run"),
        ("https://wandb.ai/a/b/groups/x/workspace", "is a group of runs, not a run"),
        ("https://wandb.ai/a/b/artifacts", "is the list of a project's artifacts"),
        ("https://wandb.ai/a/b/artifacts/model/n", "without a version: write wandb:a/b/n:latest"),
        ("wandb:a/b/sweeps/x", "is a sweep, not a run"),
        ("https://wandb.ai/a/registry/model?selectionPath=a%2Fx&view=versions", "is a registry page"),
        ("https://wandb.ai/orgs/a/registry/model", "is a registry page"),
        ("s3://bucket/x.pt", "neither wandb.ai nor huggingface.co: download"),
        ("wandb:a/b/n:", "for an artifact"),
        ("https://huggingface.co/a/b/discussions/3", "its files are at hf://a/b@refs/pr/3"),
        ("https://huggingface.co/spaces/a/b", "page without files"),
        ("https://huggingface.co/a/b/commits/main", "page without files"),
        ("hf://a/b/../../c", "has a path with '.', '..' or '//'"),
        ("saelens:x", "write saelens:RELEASE/SAE_ID"),
        ("demo:", "write demo:NAME"),
        ("https://example.com/x", "neither wandb.ai nor huggingface.co"),
        ("https://wandb.ai/a", "write https://wandb.ai/ENTITY"),
        ("https://wandb.ai/a/projects", "write https://wandb.ai/ENTITY"),
        ("https://huggingface.co/gpt2/tree/main", "write https://huggingface.co/ORG/REPO"),
        ("https://huggingface.co/collections/a/b-12", "page without files; give hf://org/repo/path"),
        ("./x::layer=two", "takes an integer"),
        ("./x::latent_axis=2", "takes 0 or 1"),
        ("./x::a::b", "write a hook"),
        ("./x::layer=1::layer=2", "contains ::layer= twice"),
        ("./x::", "write a hook"),
        ("::a", "has no address before"),
    ],
)
def test_what_is_not_an_address_is_refused_with_a_suggestion(text: str, sentence: str) -> None:
    with pytest.raises(AddressError, match=sentence):
        parse(text)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_one_error(text: str) -> None:
    with suppress(AddressError):
        assert isinstance(parse(text), Address)


@given(
    st.from_regex(
        r"(wandb:|hf://|saelens:|demo:|https://wandb.ai/|https://huggingface.co/)[a-z@/#:=.]{0,30}", fullmatch=True
    )
)
def test_a_canonical_spelling_spells_itself(text: str) -> None:
    try:
        address = parse(text)
    except AddressError:
        return
    assert str(parse(str(address))) == str(address)


def test_selections_spell_themselves() -> None:
    assert str(Selection("h", layer=1, source=0)) == "::h::layer=1::source=0"


@pytest.mark.parametrize("text", ["https://wandb[ai/", "https://[x]/a", "mine=https://[::1/"])
def test_what_is_not_a_url_is_reported(text):
    with pytest.raises(AddressError, match="is not a URL"):
        parse(text)


def test_a_revision_in_the_wrong_place_is_not_taken_for_a_password():
    with pytest.raises(AddressError, match="'hf://gpt2@main/x' is incomplete"):
        parse("hf://gpt2@main/x")
    assert str(parse("hf://me/hf_SparseAutoencoders32k")) == "hf://me/hf_SparseAutoencoders32k"
    with pytest.raises(AddressError, match="contains a user name or a password"):
        parse("hf://me:secret@host/x")
