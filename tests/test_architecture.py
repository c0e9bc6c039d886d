"""Tests of the architecture: imports go down and form no circle, files and functions stay small, importing is light."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sae_geometry as sg
from sae_geometry.results.answer import Answer
from sae_geometry.results.result import Result

PACKAGE = Path(sg.__file__).parent

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


@cache
def nodes_of(source: str) -> list[ast.AST]:
    """Return every node of a source, cached because six tests read the whole package."""
    return list(ast.walk(ast.parse(source)))


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    yield
    nodes_of.cache_clear()


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


MOST_LINES, MOST_OF_A_FUNCTION, MOST_MEMBERS = 400, 60, 15
OPTIONS = "one parameter per option, which typer needs, with its help"
TOO_LONG_FUNCTIONS = {
    "sources.files.torch_pickle._run": "the interpreter's one loop, a branch per opcode",
    "cli.compare.compare": OPTIONS,
    "cli.umap.umap": OPTIONS,
}


def long_files(package: Path) -> dict[str, int]:
    """Return the files over the limit, with their lines."""
    lines = {
        p.relative_to(package).as_posix(): len(p.read_text(encoding="utf-8").splitlines())
        for pattern in ("*.py", "*.js")
        for p in package.rglob(pattern)
    }
    return {name: n for name, n in lines.items() if n > MOST_LINES}


def long_functions(package: Path) -> dict[str, int]:
    """Return the functions over the limit, with their lines without docstrings."""
    found = {}
    for path in package.rglob("*.py"):
        for node in nodes_of(path.read_text(encoding="utf-8")):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = node.body[0] if ast.get_docstring(node) else None
                n = node.end_lineno - node.lineno + 1 - (doc.end_lineno - doc.lineno + 1 if doc else 0)
                if n > MOST_OF_A_FUNCTION:
                    found[f"{'.'.join(path.relative_to(package).with_suffix('').parts)}.{node.name}"] = n
    return found


def test_files_and_functions_stay_small():
    assert long_files(PACKAGE) == {}
    assert set(long_functions(PACKAGE)) == set(TOO_LONG_FUNCTIONS), long_functions(PACKAGE)


def test_a_long_file_and_a_long_function_would_be_found(tmp_path):
    body = "    x = 1\n" * MOST_OF_A_FUNCTION
    (tmp_path / "a.py").write_text(f'def f():\n    """What.\n\n    It does.\n    """\n{body}' + "# \n" * MOST_LINES)
    assert long_functions(tmp_path) == {"a.f": MOST_OF_A_FUNCTION + 1}
    assert set(long_files(tmp_path)) == {"a.py"}


def members(of: type) -> list[str]:
    """Return the public methods and properties of a class, without fields and the contract of every result."""
    fields = {*getattr(of, "__dataclass_fields__", {}), *vars(Answer), *vars(Result)}
    return sorted(n for c in of.__mro__ for n in vars(c) if not n.startswith("_") and n not in fields)


MANY_MEMBERS = {
    "Matching": "one property per number that is quoted of a direction: mean, chance, own, coverage, significant, …",
    "SeedComparison": "one matrix per number of an ordered pair: mmcs, chance, own, shared, significant, paired, …",
}


def test_public_classes_stay_narrow():
    classes = {name: getattr(sg, name) for name in sg.__all__ if inspect.isclass(getattr(sg, name))}
    wide = {n: len(members(c)) for n, c in classes.items() if not issubclass(c, Exception) and len(members(c)) > 15}
    assert set(wide) == set(MANY_MEMBERS), wide


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


def _modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*(f'module:{{m}}' for m in sys.modules), sep='\\n')"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {line.removeprefix("module:") for line in result.stdout.splitlines() if line.startswith("module:")}


HEAVY = {
    "wandb", "huggingface_hub", "umap", "matplotlib", "numba", "torch", "pandas", "scipy", "triton", "sklearn", "dask",
    "distributed", "plotly",
}  # fmt: skip


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict[str, set[str]]:
    """Return the imported modules after each step in one process, and the content of its initially empty folder."""
    home = tmp_path_factory.mktemp("home")
    script = (
        "import json, os, sys\nsteps = {}\nimport sae_geometry as sg\nsteps['import'] = list(sys.modules)\n"
        "sg.load('demo:local-narrow-seed0')\nsteps['load'] = list(sys.modules)\n"
        "sg.compare, sg.umap, sg.save\nsteps['folder'] = os.listdir()\n"
        "sg.seeds(['demo:local-narrow-seed0'] * 2, matching='mutual')\nsteps['seeds'] = list(sys.modules)\n"
        "print(json.dumps(steps))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, cwd=home, env=_env(home), capture_output=True, text=True
    )
    return {step: set(names) for step, names in json.loads(done.stdout).items()}


def test_importing_the_package_imports_nothing_heavy(stages):
    assert not HEAVY & stages["import"]


def test_loading_a_dictionary_imports_no_client_and_no_plots(stages):
    assert not {"wandb", "huggingface_hub", "umap", "matplotlib", "numba"} & stages["load"]
    assert "torch" in stages["load"]


def test_comparing_here_imports_nothing_of_dask(stages):
    assert not {"dask", "distributed", "tornado.tcpserver"} & stages["seeds"]


def test_importing_and_loading_make_no_folder(stages):
    assert stages["folder"] == set()


@pytest.mark.parametrize("arguments", [[], ["compare"], ["umap"], ["inspect"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom sae_geometry.cli import main\n"
        f"sys.argv = ['sae-geometry', *{arguments!r}, '--help']\ntry:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert not HEAVY & _modules_after(code)


def _env(home: Path) -> dict[str, str]:
    keep = {k: v for k, v in os.environ.items() if k in {"PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}}
    return keep | {
        "HOME": str(home), "PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": "/tmp"
    }  # fmt: skip


def public_callables():
    for name in sg.__all__:
        value = getattr(sg, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            yield pytest.param(value, id=name)


@pytest.mark.parametrize("thing", list(public_callables()))
def test_public_names_are_documented_and_signatures_are_narrow(thing):
    assert inspect.getdoc(thing), f"{thing.__name__} has no docstring"
    if inspect.isclass(thing):
        return
    parameters = inspect.signature(thing).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(positional) <= 3
    assert not any(isinstance(p.default, bool) for p in positional)
    assert "Example" in inspect.getdoc(thing) or thing.__name__ in {"demos", "read", "exact_neighbors"}


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(AttributeError, match="no attribute 'compair'"):
        sg.compair  # noqa: B018


def test_dir_lists_the_public_names():
    assert {"compare", "umap", "load", "Dictionary"} <= set(dir(sg))


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
