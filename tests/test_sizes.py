"""Tests that files, functions and public classes stay small."""

from __future__ import annotations

import ast
from pathlib import Path

from parsed import PACKAGE, module_name, nodes_of
from parsed import forgotten as forgotten

from sae_geometry.results.answer import Answer
from sae_geometry.results.result import Result

TESTS = Path(__file__).parent
MOST_LINES, MOST_OF_A_FUNCTION, MOST_MEMBERS = 400, 60, 15

# What is over a limit is listed with a ceiling, which is its present size, and the reason: it may shrink, but not grow.
OPTIONS = "one parameter per option, which typer needs, with its help"
TOO_LONG_FUNCTIONS = {
    "sources.files.torch_pickle._run": (75, "the interpreter's one loop, a branch per opcode"),
    "cli.compare.compare": (91, OPTIONS),
    "cli.umap.umap": (63, OPTIONS),
}
MANY_MEMBERS = {
    "pairwise.matching_result.Matching": (
        25, "one property per number that is quoted of a direction: mean, chance, own, coverage, significant, …"
    ),
    "comparisons.seeds_matrices.SeedMatrices": (
        20, "one matrix per number of an ordered pair: mmcs, chance, own, shared, significant, paired, …"
    ),
    "comparisons.seeds_result.SeedComparison": (25, "the matrices of SeedMatrices, and the results over all runs"),
}  # fmt: skip


def long_files(folder: Path) -> dict[str, int]:
    """Return the files over the limit, with their lines."""
    lines = {
        p.relative_to(folder).as_posix(): len(p.read_text(encoding="utf-8").splitlines())
        for p in folder.rglob("*")
        if p.suffix in (".py", ".js", ".css", ".html")
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
                    found[f"{module_name(path, package)}.{node.name}"] = n
    return found


def members(package: Path) -> dict[str, set[str]]:
    """Return the members of every public class, inherited ones included.

    Public methods and properties count; dataclass fields do not, nor does the contract that every result implements.
    """
    own: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    for path in package.rglob("*.py"):
        module, nodes = f"{package.name}.{module_name(path, package)}", nodes_of(path.read_text(encoding="utf-8"))
        classes = [n for n in nodes if isinstance(n, ast.ClassDef)]
        imports = [n for n in nodes if isinstance(n, ast.ImportFrom)]
        names = {a.asname or a.name: f"{n.module}.{a.name}" for n in imports for a in n.names}
        names |= {c.name: f"{module}.{c.name}" for c in classes}
        for c in classes:
            functions = {f.name for f in c.body if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)}
            own[names[c.name]] = {name for name in functions if not name.startswith("_")}
            bases[names[c.name]] = [names.get(ast.unparse(base).partition("[")[0], "") for base in c.bases]

    def all_of(name: str) -> set[str]:
        if not name.startswith(f"{package.name}."):  # Classes of other packages add nothing of ours.
            return set()
        return own[name].union(*map(all_of, bases[name]))

    contract = {*vars(Answer), *vars(Result)}
    public = [name for name in own if not name.rpartition(".")[2].startswith("_")]
    return {name.removeprefix(f"{package.name}."): all_of(name) - contract for name in public}


def wide_classes(package: Path) -> dict[str, int]:
    """Return the public classes over the limit, with the number of their members."""
    return {name: len(found) for name, found in members(package).items() if len(found) > MOST_MEMBERS}


def over(sizes: dict[str, int], ceilings: dict[str, tuple[int, str]]) -> dict[str, int]:
    """Return what is not listed or above its ceiling."""
    return {name: n for name, n in sizes.items() if name not in ceilings or n > ceilings[name][0]}


def test_files_stay_small():
    assert long_files(PACKAGE) == {}
    assert long_files(TESTS) == {}


def test_functions_stay_small():
    found = long_functions(PACKAGE)
    assert over(found, TOO_LONG_FUNCTIONS) == {}
    assert set(found) == set(TOO_LONG_FUNCTIONS), "a function that is short again needs no exception"


def test_public_classes_stay_narrow():
    found = wide_classes(PACKAGE)
    assert over(found, MANY_MEMBERS) == {}
    assert set(found) == set(MANY_MEMBERS), "a class that is narrow again needs no exception"


def test_a_long_file_and_a_long_function_would_be_found(tmp_path):
    body = "    x = 1\n" * MOST_OF_A_FUNCTION
    (tmp_path / "a.py").write_text(f'def f():\n    """What.\n\n    It does.\n    """\n{body}' + "# \n" * MOST_LINES)
    for name in ("a.js", "a.css", "a.html", "a.csv"):
        (tmp_path / name).write_text("\n" * (MOST_LINES + 1))
    assert long_functions(tmp_path) == {"a.f": MOST_OF_A_FUNCTION + 1}
    assert set(long_files(tmp_path)) == {"a.py", "a.js", "a.css", "a.html"}
    assert over(long_functions(tmp_path), {"a.f": (MOST_OF_A_FUNCTION + 1, "")}) == {}
    assert over(long_functions(tmp_path), {"a.f": (MOST_OF_A_FUNCTION, "")}) == {"a.f": MOST_OF_A_FUNCTION + 1}


def test_a_wide_class_would_be_found_with_what_it_inherits(tmp_path):
    half = [f"    def f{i}(self): ..." for i in range(MOST_MEMBERS)]
    (tmp_path / "a.py").write_text("\n".join(["class A:", *half, "    def _hidden(self): ..."]))
    fields = ["    x: int", "    def summary(self): ...", "    @property\n    def more(self): ..."]
    (tmp_path / "b.py").write_text("\n".join([f"from {tmp_path.name}.a import A as Base", "class B(Base):", *fields]))
    assert members(tmp_path)["b.B"] == {"more", *(f"f{i}" for i in range(MOST_MEMBERS))}
    assert wide_classes(tmp_path) == {"b.B": MOST_MEMBERS + 1}
