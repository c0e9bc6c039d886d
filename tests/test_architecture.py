"""Tests of the architecture: imports go down and form no circle, and state and interfaces stay in their places."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from parsed import PACKAGE, nodes_of
from parsed import forgotten as forgotten

import sae_geometry as sg
from sae_geometry.results.answer import Answer
from sae_geometry.results.result import Result

# A subpackage may import from lower floors only, not from its own.
FLOORS = {
    "io": 0,
    "kernels": 1,  # These take and return tensors, and know no Dictionary.
    "dictionary": 1,
    "matching": 2,
    "sources": 2,
    "nulls": 3,
    "pairwise": 4,
    "distributed": 4,
    "plots": 5,
    "results": 6,  # wandb_log writes to the network on request; only sources read from it.
    "labels": 6.5,  # above results, below the questions that show labels
    "comparisons": 7,
    "embedding": 7,
    "explorer": 8,
    "cost": 8,
    "__init__": 9,
    "cli": 10,
    "__main__": 11,
}


def unit_of(path: Path, package: Path) -> str:
    """Return the name of a file in FLOORS: its subpackage, or its own stem."""
    parts = path.relative_to(package).parts
    return parts[0] if len(parts) > 1 else path.stem


def imported_units(source: str) -> set[str]:
    """Return the units of sae_geometry that a source imports anywhere, TYPE_CHECKING blocks included."""
    found: set[str] = set()
    for node in nodes_of(source):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module] if node.module != "sae_geometry" else [f"sae_geometry.{a.name}" for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add("relative import")
            continue
        else:
            continue
        for name in names:
            head, _, rest = name.partition(".")
            if head == "sae_geometry":
                found.add(rest.split(".")[0] or "__init__")
    return {u if u in FLOORS or u == "relative import" else "__init__" for u in found}


def violations(package: Path) -> list[str]:
    """Return every import that goes up or sideways, and every module without a floor."""
    wrong = []
    for path in sorted(package.rglob("*.py")):
        unit = unit_of(path, package)
        if unit not in FLOORS:
            wrong.append(f"{path.name}: {unit} has no floor")
            continue
        for other in imported_units(path.read_text(encoding="utf-8")):
            if other == "relative import":
                wrong.append(f"{unit} uses a relative import")
            elif other != unit and FLOORS[other] >= FLOORS[unit]:
                wrong.append(f"{path.relative_to(package)} (floor {FLOORS[unit]}) imports {other} ({FLOORS[other]})")
    return wrong


def test_imports_go_down():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("where", "line", "expected"),
    [
        ("kernels/x.py", "from sae_geometry.comparisons.pair import compare", "imports comparisons"),
        ("kernels/x.py", "from sae_geometry.dictionary import Dictionary", "imports dictionary"),
        ("dictionary.py", "def f():\n    import sae_geometry.plots.style", "imports plots"),
        ("matching/x.py", "if True:\n    from sae_geometry import sources", "imports sources"),
        ("results/store.py", "import sae_geometry as sg", "imports __init__"),
        ("results/store.py", "from sae_geometry.comparisons.pair import Comparison", "imports comparisons"),
        ("results/store.py", "from . import cli", "relative import"),
        ("newcomer.py", "x = 1", "newcomer has no floor"),
    ],
)
def test_this_test_can_fail(tmp_path, where, line, expected):
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert any(expected in v for v in violations(tmp_path))


def test_good_imports_pass(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "a.py").write_text("from sae_geometry.kernels.b import c\nimport torch")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "store.py").write_text("from sae_geometry.plots import save_figure")
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "a.py").write_text("import sae_geometry as sg\nfrom sae_geometry.results.store import save")
    assert violations(tmp_path) == []


# These import modules by names that they are given: the public names, the commands, and packages of the extras.
BY_NAME = {"__init__.py", "cli/__init__.py", "io/extras.py"}


def imports_by_name(source: str) -> list[str]:
    """Return the places where a source can import a module that no import statement names.

    A call counts, and so does any other mention of `import_module` or `__import__`, which could lead to a call.
    """
    found = []
    for node in nodes_of(source):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) | ast.Constant(value=str(name)):
                if name in ("import_module", "__import__") or (isinstance(node, ast.alias) and name == "*"):
                    found.append(ast.unparse(node))
    return found


def own_modules_required(source: str) -> list[str]:
    """Return the calls of `io.extras.require` that could import a module of this package."""
    calls = [n for n in nodes_of(source) if isinstance(n, ast.Call) and ast.unparse(n.func).endswith("require")]
    names = [call.args[0] if call.args else None for call in calls]
    return [
        ast.unparse(call)
        for call, name in zip(calls, names, strict=True)
        if not (isinstance(name, ast.Constant) and not str(name.value).startswith("sae_geometry"))
    ]


def test_modules_are_imported_by_statements():
    sources = {p.relative_to(PACKAGE).as_posix(): p.read_text(encoding="utf-8") for p in PACKAGE.rglob("*.py")}
    assert {name for name, source in sources.items() if imports_by_name(source)} == BY_NAME
    assert {name: found for name, source in sources.items() if (found := own_modules_required(source))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import importlib\nimportlib.import_module('sae_geometry.cli')",
        "def f():\n    from importlib import import_module as load\n    load(f'sae_geometry.{x}')",
        "__import__('sae_geometry.cli')",
        "import builtins as b\nb.__import__('sae_geometry.cli')",
        "import importlib as i\ngetattr(i, 'import_module')('sae_geometry.cli')",
        "from importlib import *",
    ],
)
def test_an_import_by_name_would_be_seen(line):
    assert imports_by_name(line)
    assert not imports_by_name("import importlib.util\nfrom importlib.metadata import version\nreimport_module = 1")


def test_a_module_of_ours_required_as_an_extra_would_be_seen():
    for name in ("'sae_geometry.cli'", "module", ""):
        assert own_modules_required(f"x = extras.require({name})")
    assert not own_modules_required("cupy = require('cupy', 'cu13', 'a GPU')")


def imported_modules(package: Path) -> dict[str, set[str]]:
    """Return the package's modules that each of its modules imports, anywhere in it."""
    paths = {".".join(p.relative_to(package.parent).with_suffix("").parts): p for p in package.rglob("*.py")}
    names = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        for node in nodes_of(path.read_text(encoding="utf-8")):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                both = [(f"{node.module}.{alias.name}", str(node.module)) for alias in node.names]
                found[name] |= {inner if inner in names else outer for inner, outer in both}
    return {name: imports & set(names) for name, imports in found.items()}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle, or an empty list."""
    left = dict(imports)
    while free := [name for name, others in left.items() if not others & set(left)]:
        for name in free:
            del left[name]
    return sorted(left)


def test_there_is_no_circle_inside_a_room_either():
    assert circle(imported_modules(PACKAGE)) == []


def test_a_circle_would_be_found(tmp_path):
    room = tmp_path / "kernels"
    room.mkdir()
    (room / "a.py").write_text(f"def f():\n    from {tmp_path.name}.kernels import b")
    (room / "b.py").write_text(f"from {tmp_path.name}.kernels.c import d")
    (room / "c.py").write_text("d = 1")
    assert circle(imported_modules(tmp_path)) == []
    (room / "c.py").write_text(f"from {tmp_path.name}.kernels.a import f\nd = 1")
    assert circle(imported_modules(tmp_path)) == [f"{tmp_path.name}.kernels.{x}" for x in "abc"]


def test_three_modules_stand_at_the_top():
    assert {p.name for p in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "dictionary.py"}


# These are a cache that the comparisons of one sweep share, and ledgers that are open within a context.
MUTABLE = {"PairMatchings.made", "Settings.sweeps", "Work.dictionaries"}


def mutable_fields(source: str) -> set[str]:
    """Return the fields of frozen dataclasses whose values can be changed in place."""
    classes = [n for n in nodes_of(source) if isinstance(n, ast.ClassDef)]
    frozen = [c for c in classes if any("frozen=True" in ast.unparse(d) for d in c.decorator_list)]
    fields = [(c.name, f) for c in frozen for f in c.body if isinstance(f, ast.AnnAssign)]
    kinds = ("dict[", "list[", "set[")
    return {f"{name}.{ast.unparse(f.target)}" for name, f in fields if ast.unparse(f.annotation).startswith(kinds)}


def test_frozen_classes_hold_nothing_mutable():
    assert set().union(*(mutable_fields(p.read_text("utf-8")) for p in PACKAGE.rglob("*.py"))) == MUTABLE
    assert mutable_fields("@dataclass(frozen=True)\nclass A:\n    x: dict[str, int]\n    y: int") == {"A.x"}


def asked_by_name(source: str) -> list[str]:
    """Return the calls that ask a result for something that its contract may lack."""
    calls = [node for node in nodes_of(source) if isinstance(node, ast.Call) and node.args]
    names = [ast.unparse(call.func) for call in calls]
    asked = zip(names, calls, strict=True)
    return [ast.unparse(c) for n, c in asked if n in ("getattr", "hasattr") and ast.unparse(c.args[0]) == "result"]


def test_results_are_asked_for_nothing_but_their_contract():
    results = [c for name in sg.__all__ if inspect.isclass(c := getattr(sg, name)) and issubclass(c, Answer)]
    contract = {name for name in vars(Result) if not name.startswith("_")}
    assert len(results) >= 14
    for of in results:
        assert contract <= {*dir(of), *of.__dataclass_fields__}, of
    assert {str(p): found for p in PACKAGE.rglob("*.py") if (found := asked_by_name(p.read_text("utf-8")))} == {}
    assert asked_by_name('x = getattr(result, "lists", {})') == ["getattr(result, 'lists', {})"]


def ambient(source: str) -> list[str]:
    """Return context variables, and module variables that functions assign."""
    nodes = nodes_of(source)
    calls = [ast.unparse(n) for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func).endswith("ContextVar")]
    return calls + [name for n in nodes if isinstance(n, ast.Global) for name in n.names]


def test_temporary_state_is_in_the_settings():
    assert {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if ambient(p.read_text("utf-8"))} == {
        "kernels/settings.py"
    }
    assert ambient("def f():\n    global x\n    x = ContextVar('y')") == ["ContextVar('y')", "x"]


HOLES = ("torch.jit", "torch.export", "torch.load", "torch.package", "torch.serialization", "torch.hub")


def holes(source: str) -> list[str]:
    """Return a source's uses of the vulnerable parts of torch, and aliases of torch that could hide them."""
    names: set[str] = set()
    for node in nodes_of(source):
        if isinstance(node, ast.Import):
            names |= {f"{a.name} as {a.asname}" if a.name == "torch" and a.asname else a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    seen = {n for n in names if any(n == hole or n.startswith(f"{hole}.") for hole in HOLES)}
    return sorted(seen | {n for n in names if n == "torch.*" or n.startswith("torch as ")})


def test_the_parts_of_torch_with_known_holes_are_not_used():
    assert {str(p): found for p in PACKAGE.rglob("*.py") if (found := holes(p.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from torch import jit",
        "import torch.export",
        "x = torch.load(f)",
        "from torch.jit import script as s",
        "import torch as t",
        "from torch import *",
        "from torch.serialization import load",
    ],
)
def test_and_would_be_seen_if_they_were(line):
    assert holes(line)
    assert not holes("import torch\nx = torch.loads_nothing(torch.jitter)")
