"""Tests of regions from a file: they are drawn as written, and errors name the wrong entry."""

from __future__ import annotations

import json

import pytest
from limited import limited
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.embedding.region_file import Shape, read_shapes

NARROW = "demo:local-narrow-seed0"


def merges(table, between="\n"):
    """Return eleven nested tables or lists, each with nine references to the one before."""
    return between.join(
        ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {table % ', '.join([f'*a{i - 1}'] * 9)}" for i in range(1, 12))]
    )


@pytest.mark.parametrize("wrapped", [True, False])
def test_boxes_and_polygons(tmp_path, wrapped):
    body = ["A: {box: [1, 3.5, -2, 0.5]}", "1: {polygon: [[0, 0], [4, 0], [2, 3]]}", "no: {box: [0, 1, 0, 1]}"]
    file = tmp_path / "r.yaml"
    file.write_text("\n".join(["regions:", *(f"  {line}" for line in body)] if wrapped else body))
    assert read_shapes(file) == (
        Shape("A", ((1.0, -2.0), (3.5, -2.0), (3.5, 0.5), (1.0, 0.5))),
        Shape("1", ((0.0, 0.0), (4.0, 0.0), (2.0, 3.0))),
        Shape("no", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no regions"),
        ("- 1", "has no regions"),
        ("regions: {}", "has no regions"),
        ("A: [", "not YAML"),
        ("A: !!bool maybe", "expected one box or one polygon, got 'maybe'"),
        ("A: {box: [!!int '', 1, 0, 1]}", "4 finite numbers; got .'', 1, 0, 1."),
        ("A: {box: [0, !!python/name:os.system , 0, 1]}", "4 finite numbers"),
        ("? [1]\n: {box: [0, 1, 0, 1]}", "has no regions"),
        ("[" * 5000, "nested more than 64 deep"),
        ("&a A: *a", "got 'A'"),
        (merges("{<<: [%s]}"), "region 'a0': expected one box or one polygon, got .'x': 1."),
        (f"regions: {{{merges('[%s]', ', ')}, A: *a11}}", "region 'a0': expected"),
        (f"x: {{{merges('[%s]', ', ')}}}\nregions: {{A: *a11}}", "region 'A': expected one box or one polygon, got"),
        ("A: {circle: 3}", "region 'A': expected one box or one polygon"),
        ("A: {box: [1, 2, 3, 4], polygon: []}", "region 'A': expected one box or one polygon"),
        ("A: [0, 1, 2, 3]", "region 'A': expected one box or one polygon"),
        ("B: {box: [1, 2, 3]}", "region 'B': a box is .*4 finite numbers; got .1, 2, 3."),
        ("B: {box: [2, 1, 3, 4]}", "x0 < x1 and y0 < y1; got .2, 1, 3, 4."),
        ("B: {box: [1, 2, 3, .nan]}", "4 finite numbers"),
        ("B: {box: [1, 2, 3, true]}", "4 finite numbers"),
        ("C: {polygon: [[0, 0], [1, 1]]}", "region 'C': a polygon has at least three corners"),
        ("C: {polygon: [[0, 0], [1, 1], [2]]}", "region 'C', corner 3: a corner is"),
        (f"{'x' * 25}: {{box: [0, 1, 0, 1]}}", "1 to 24 characters; got 25"),
        ("A: {box: [0, 1, 0, 1]}\nA: {box: [0, 2, 0, 2]}", "'A' is given twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with limited(), pytest.raises(ValueError, match=said) as caught:
        read_shapes(file)
    assert "\n" not in str(caught.value)


def test_a_device_file_is_refused_as_a_region_file():
    with limited(), pytest.raises(ValueError, match="more than 1,000,000 bytes"):
        read_shapes("/dev/zero")


def run(*arguments):
    return CliRunner().invoke(
        app, ["umap", NARROW, "--n-epochs", "10", "--no-stability", "--format", "png", *arguments]
    )


def test_the_command_takes_them(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("left: {box: [-1000, 5, -1000, 1000]}\nrest: {box: [-1000, 1000, -1000, 1000]}")
    out = tmp_path / "out"
    made = run("--regions", str(file), "-o", str(out))
    assert made.exit_code == 0, made.output
    assert "2 regions with 100% of the latents" in made.output
    record = json.loads((out / "regions.json").read_text())
    assert record["how"] == "given by hand"
    tables, _ = sg.read(out)
    table = next(iter(tables.values()))
    assert [r["letter"] for r in record["regions"]] == ["left", "rest"]
    assert sum(r["size"] for r in record["regions"]) == 512
    assert ((table["x"] < 5) == (table["region"] == "left")).all()
    assert (out / "figures" / "regions.png").exists()


def test_the_command_finds_them_in_the_neighbors_and_refuses_both(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("A: {box: [0, 1, 0, 1]}")
    made = run("--regions-on", "neighbors", "--min-region-size", "12", "-o", str(tmp_path / "out"))
    assert made.exit_code == 0, made.output
    assert "HDBSCAN on the neighbors, at least 12 latents" in made.output
    for extra in (["--min-region-size", "12"], ["--regions-on", "neighbors"]):
        wrong = run("--regions", str(file), *extra)
        assert wrong.exit_code == 2
        assert "--regions replaces clustering" in wrong.output
    missing = run("--regions", str(tmp_path / "none.yaml"))
    assert missing.exit_code == 1
    assert "none.yaml does not exist" in missing.output
