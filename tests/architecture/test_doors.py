"""Files of runs, stores and registries are read through one door and written through another.

Reading: `Artifact.file`, `read…`, `folder`, and `edgeres.door`. Writing: `edgeres.disk`. Whoever
opens a file by himself is listed here, with what he may do that for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2] / "edgeres"
WRITES = {"write_text", "write_bytes", "copyfile", "copytree", "copy2", "tofile", "mkstemp",
          "NamedTemporaryFile"}  # fmt: skip
_STAGED = "a stage's fresh folder, which the store hashes and moves into place"
_EXPORTED = "the file that it is asked for, in a stage's fresh folder"
_NAMED = "a file or folder that the user names"
_WORK = "unfinished work in the user's own store"
_CACHE = "the user's own cache folder"
ALLOWED = {
    "registry.py": "a file of a random name, linked to its own, which never replaces another",
    "bundle/": "a fresh folder, which becomes the archive, or one to unpack into",
    "cli/__init__.py": "the log of an unexpected error, under a random name",
    "commands/search.py": _NAMED, "commands/start.py": _NAMED,
    "datasets/_store.py": _STAGED,
    "disk.py": "a copy under a random name, of a folder that `Artifact.folder` has checked",
    "devices/": "files on a device, or a fresh folder for them",
    "measurement/latency_table.py": _CACHE, "measurement/runners/": "a fresh folder for a device",
    "stages/benchmark.py": f"{_STAGED}; {_WORK}",
    **dict.fromkeys((f"stages/{name}.py" for name in (
        "_checkpoint", "budgets", "data", "export", "prune", "report", "verify"
    )), _STAGED),
    "targets/": _EXPORTED,
    "teachers/__init__.py": f"{_STAGED}, or one that `Artifact.folder` has checked",
    "teachers/keras.py": _STAGED, "teachers/onnx.py": _STAGED, "teachers/_download.py": _CACHE,
    "runtimes/": "a fresh folder that a runtime's process shares; `_child.py` runs without edgeres",
    "tracking/tensorboard.py": "a folder that it has just made itself",
    "training/keeper.py": _WORK, "training/label_cache.py": f"{_WORK}, or a checked artifact",
    "verification/selftest.py": "a copy in a fresh folder, to plant faults in",
}  # fmt: skip
OWN = {"run", "self", "work"}  # whose `.path / name` isn't an artifact's


def modules() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def opens(tree: ast.AST) -> Iterator[str]:
    """Each call that opens a file for writing, copies one, or reads JSON by a path."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
        if name in WRITES or (name == "open" and any(map(_writes, modes))):
            yield f"line {node.lineno}: {name}"
        if name == "loads" and any("read_text" in ast.dump(a) for a in node.args):
            yield f"line {node.lineno}: json.loads(….read_text())"


def _writes(mode: object) -> bool:
    return isinstance(mode, str) and bool(mode) and set(mode) <= set("rwaxbt+") and mode[0] != "r"


def goes_around(tree: ast.AST) -> Iterator[str]:
    """Each `artifact.path / name`, `artifact.path.glob` and `load(artifact.path)`."""
    for node in ast.walk(tree):
        around = None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            around = node.left
        elif isinstance(node, ast.Attribute) and node.attr in ("glob", "rglob", "iterdir"):
            around = node.value
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("load", "convert"):
            around = node.args[0] if node.args else None
        if isinstance(around, ast.Attribute) and around.attr == "path":
            owner = ast.unparse(around.value)
            if owner not in OWN:
                yield f"line {around.lineno}: {owner}.path"


def test_who_opens_files_by_himself_says_why() -> None:
    found, used = {}, set()
    for module, tree in modules():
        calls = list(opens(tree))
        allowed = {
            key for key in ALLOWED if module == key or (key[-1] == "/" and module.startswith(key))
        }
        used |= allowed if calls else set()
        if calls and not allowed:
            found[module] = calls
    assert found == {}, "use edgeres.disk and Artifact's methods, or say in ALLOWED why not"
    assert set(ALLOWED) - used == set(), "these have no such calls any more"


def test_nobody_goes_around_an_artifacts_door() -> None:
    here = ("artifact.py", "store.py", "runs.py")
    found = {module: calls for module, tree in modules()
             if module not in here and (calls := list(goes_around(tree)))}  # fmt: skip
    assert found == {}, "use artifact.file(name), read…(name) or folder()"


def test_the_rules_find_what_they_forbid() -> None:
    bad = ast.parse(
        'p.write_text("x")\nopen(p, "w")\np.open("ab")\nshutil.copyfile(a, b)\n'
        'json.loads(p.read_text("utf-8"))\n'
        'artifact.path / "x"\ninputs["a"].path.glob("*")\nweights.load(origin.path)\n'
        'p.open("rb")\nrun.path / "x"\n'
    )
    assert len(list(opens(bad))) == 5
    assert len(list(goes_around(bad))) == 3
