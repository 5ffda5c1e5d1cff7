"""Plugins of packages: installed, found, used through the command line, and broken in all ways."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import needs

from edgeres import datasets, devices, losses, plugins, runtimes, targets, teachers
from edgeres.errors import BadInput, MissingComponent

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "tests" / "fixtures" / "plugin"
ORIGIN = "edgeres-example 1.0"
RECIPE = """
name: stripes
data: stripes
teacher: {model: "edges:20"}
distill: {student: resnet8, loss: l1, train: {epochs: 2}}
export: {targets: [npz-fp32]}
verify: {on: [plain-numpy]}
report: {}
"""


def _installed(folder: Path, change: tuple[str, str, str] = ("", "", "")) -> Path:
    """The sample, installed below a folder, offline.

    Args:
        change: a file of it, and a text in it with what takes its place.
    """
    needs("setuptools")
    source, site = folder / "source", folder / "site"
    shutil.copytree(SAMPLE, source)
    file, old, new = change
    if file:
        text = (source / file).read_text("utf-8")
        assert text.count(old) == 1
        (source / file).write_text(text.replace(old, new), "utf-8")
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "install", "--offline", "--python", sys.executable] if uv.exists() else \
        [sys.executable, "-m", "pip", "install", "--no-index"]  # fmt: skip
    subprocess.run([*command, "--quiet", "--no-deps", "--no-build-isolation", "--target", site,
                    source], check=True)  # fmt: skip
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _installed(tmp_path_factory.mktemp("sample"))


def _python(site: Path | None, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, filter(None, (ROOT, site))))
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def _edgeres(site: Path | None, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return _python(site, "-m", "edgeres", *arguments, cwd=cwd)


def _json(site: Path | None, *arguments: str, cwd: Path) -> Any:
    done = _edgeres(site, *arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LISTED = {"datasets": "stripes", "losses": "l1", "teachers": "edges:…", "targets": "npz-fp32",
          "runtimes": "plain-numpy", "devices": "nice"}  # fmt: skip


@pytest.mark.parametrize("kind", LISTED)
def test_the_lists_say_whose_each_is(kind: str, site: Path, tmp_path: Path) -> None:
    whose = {name: row["from"] for row in _json(site, "list", kind, cwd=tmp_path)
             for name in (next(iter(row.values())), row.get("kind"))}  # fmt: skip
    assert whose[LISTED[kind]] == ORIGIN
    assert set(whose.values()) == {ORIGIN, "edgeres"}
    shown = _edgeres(site, "list", kind, cwd=tmp_path).stdout
    assert ORIGIN in shown
    assert "edgeres-example" not in _edgeres(None, "list", kind, cwd=tmp_path).stdout


@pytest.fixture(scope="module")
def ran(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the sample's recipe was run."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "stripes.yaml").write_text(RECIPE, "utf-8")
    done = _edgeres(site, "run", "stripes.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_recipe_of_plugins_runs_and_says_whose_they_are(ran: Path, site: Path) -> None:
    (run,) = (ran / "runs").glob("stripes-*")
    (file,) = run.glob("artifacts/export-npz-fp32/*.npz")
    with zipfile.ZipFile(file) as tensors:
        assert "fc.weight.npy" in tensors.namelist()
    known = {path.parent.name: json.loads(path.read_text("utf-8")).get("plugins", [])
             for path in run.glob("artifacts/*/artifact.json")}  # fmt: skip
    took = {step: {f"{p['kind']} {p['name']}" for p in found} for step, found in known.items()}
    assert took["data"] == {"dataset stripes"}
    assert took["teacher"] == {"teacher source edges"}
    assert took["distill"] == {"loss l1", "teacher source edges"}
    assert took["export-npz-fp32"] == {"target npz"}
    assert took["verify"] == {"runtime plain", "target npz"}
    assert {(p["package"], p["version"]) for f in known.values() for p in f} == {
        ("edgeres-example", "1.0")
    }
    report = json.loads((run / "report.json").read_text("utf-8"))
    assert set(report["environment"]["plugins"]) == {ORIGIN}
    assert ORIGIN in (run / "report.html").read_text("utf-8")
    assert ORIGIN in _edgeres(site, "runs", "show", run.name, cwd=ran).stdout
    verified = json.loads((run / "artifacts/verify/verify.json").read_text("utf-8"))
    (row,) = verified["files"]
    assert row["passed"] and row["agreement"] == 1
    assert [(r["runtime"], r["agreement"]) for r in row["runtimes"]] == [("plain-numpy", 1.0)]
    again = _edgeres(site, "verify", str(file), "--on", "plain-numpy", cwd=ran)
    assert again.returncode == 0, again.stderr
    old, new = ('"relu"'.encode("utf-32-le"), '"rely"'.encode("utf-32-le"))
    broken = file.read_bytes().replace(old, new)
    (ran / "broken.npz").write_bytes(broken)
    refused = _edgeres(site, "inspect", "broken.npz", cwd=ran)
    assert refused.returncode == 2 and "broken.npz: not a network as .npz" in refused.stderr


CHANGES = {
    "another version": (("pyproject.toml", 'version = "1.0"', 'version = "1.1"'), "to do"),
    "other code": (("edgeres_example/l1.py", ".abs()", ".abs().sqrt()"), "to do"),
    "nothing": (("", "", ""), "cached"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_plugin_isnt_answered_from_the_store(
    change: str, ran: Path, tmp_path: Path
) -> None:
    what, state = CHANGES[change]
    site = _installed(tmp_path, what)
    plan = _json(site, "run", "stripes.yaml", "--dry-run", cwd=ran)
    assert plan["steps"][0]["state"] == state


def test_without_the_package_its_run_is_listed_and_its_recipe_refused(
    ran: Path, tmp_path: Path
) -> None:
    assert [row["state"] for row in _json(None, "list", "runs", cwd=ran)] == ["done"]
    done = _edgeres(None, "run", "stripes.yaml", cwd=ran)
    assert done.returncode == 2 and "unknown teacher source 'edges'" in done.stderr
    assert "Traceback" not in done.stderr
    done = _edgeres(None, "verify", cwd=ran)
    assert done.returncode == 2 and "edgeres: unknown target 'npz-fp32'" in done.stderr


def test_a_kind_of_device(site: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nkind: nice\ndescription: x\n"
                                        "settings: {level: 7}\n", "utf-8")  # fmt: skip
    found = _json(site, "devices", "probe", "mine.yaml", cwd=tmp_path)
    assert found["device"] == "mine" and found["state"]["machine"]
    code = ("from edgeres import devices\n"
            "with devices.open_device(devices.load('mine.yaml')) as device:\n"
            "    print(device.run(['nice'], 5).stdout)\n")  # fmt: skip
    done = _python(site, "-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "7"
    (tmp_path / "mine.yaml").write_text("name: mine\nkind: nice\ndescription: x\n"
                                        "settings: {level: low}\n", "utf-8")  # fmt: skip
    refused = _edgeres(site, "devices", "probe", "mine.yaml", cwd=tmp_path)
    assert refused.returncode == 2 and "level must be a whole number" in refused.stderr


def test_the_sample_keeps_every_contract(site: Path) -> None:
    """The same questions that are asked of edgeres' own plugins."""
    asked = (
        "-vv",
        "-p",
        "no:cacheprovider",
        "-k",
        "npz or stripes or l1 or edges or plain or nice",
    )
    done = _python(site, "-m", "pytest", *asked, "tests/contracts", cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
    passed = {line.partition("::")[0] for line in done.stdout.splitlines() if "PASSED" in line}
    assert passed == {f"tests/contracts/test_{kind}.py" for kind in LISTED}


def test_nothing_beside_a_file_is_loaded_by_what_reads_it(tmp_path: Path, quantized: tuple) -> None:
    """`edgeres` doesn't look there, and the processes that it starts don't, either."""
    _, folded, scales = quantized
    target, _ = targets.load("tflite-int8")
    target.export(targets.Source(folded, scales), "int8", tmp_path / "m.tflite")
    mark = tmp_path / "ran"
    for name in ("json", "numpy", "edgeres", "ai_edge_litert", "flatbuffers"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n", "utf-8")
    code = ("import sys; sys.path[:] = filter(None, sys.path)\n"  # as for an installed `edgeres`
            "sys.argv = ['edgeres', 'inspect', 'm.tflite']\n"
            "from edgeres.__main__ import main\nmain()\n")  # fmt: skip
    done = _python(None, "-c", code, cwd=tmp_path)
    assert done.returncode == 0 and "CONV_2D" in done.stdout, done.stderr
    assert not mark.exists()


# --- what is broken -----------------------------------------------------------------------------

LOSS = "SUMMARY = 'x'\nONE_LABEL = False\ndef measure(student, teacher, labels, temperature): ...\n"


def _package(folder: Path, name: str, group: str, points: dict[str, str], **modules: str) -> None:
    """A package that offers plugins, as an installer leaves it."""
    notes = folder / f"{name.replace('-', '_')}-2.0.dist-info"
    notes.mkdir(parents=True)
    (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    lines = [f"[edgeres.{group}]", *(f"{key} = {value}" for key, value in points.items())]
    (notes / "entry_points.txt").write_text("\n".join(lines), "utf-8")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text, "utf-8")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on Python's path; what is loaded from it is gone afterwards."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path / "site"
    for name in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[name]


BROKEN = {
    "no such module": ("acme_none", "", r"importing acme_none fails \(ModuleNotFoundError"),
    "an error": ("acme_a", "raise RuntimeError('first\\nsecond')", r"\(RuntimeError: first\)"),
    "an exit": ("acme_b", "raise SystemExit(0)", r"\(SystemExit: 0\)"),
    "bad syntax": ("acme_c", "def", r"\(SyntaxError"),
    "nothing in it": ("acme_d", "", r"acme_d lacks SUMMARY, ONE_LABEL, measure\(\)"),
    "no function": ("acme_e", LOSS + "measure = 3", r"acme_e lacks measure\(\);"),
    "another type": ("acme_f", LOSS + "ONE_LABEL = 'no'", "acme_f lacks ONE_LABEL as bool;"),
    "no module": ("acme_g:measure", LOSS, "it names no module"),
    "a path": ("../acme_h", LOSS, "it names no module"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_with_one_stops_only_who_asks(what: str, path: Path) -> None:
    value, text, words = BROKEN[what]
    _package(path, "acme-losses", "losses", {"acme": value}, **{value.partition(":")[0]: text}
             if value.isidentifier() or ":" in value else {})  # fmt: skip
    if what == "no such module":
        (path / "acme_none.py").unlink()
    with pytest.raises(MissingComponent, match=words) as refused:
        losses.check("acme", mixed=False)
    said = str(refused.value)
    assert said.startswith("acme-losses 2.0: its loss 'acme' can't be used: ")
    assert said.endswith(", or uninstall it") and "\n" not in said
    losses.check("kd", mixed=False)
    assert losses.PLUGINS.troubles() == [said]
    with pytest.raises(BadInput, match=r"unknown loss 'acne'.*; acme-losses 2.0: its loss 'acme'"):
        losses.check("acne", mixed=False)


def test_a_name_of_two_packages_names_both(path: Path) -> None:
    for name in ("acme-one", "acme-two"):
        module = name.replace("-", "_")
        _package(path, name, "losses", {"both": module, module: module}, **{module: LOSS})
    with pytest.raises(BadInput, match=r"loss 'both' is in acme-one 2\.0 and acme-two 2\.0: un"):
        losses.check("both", mixed=False)
    losses.check("acme-one", mixed=False)
    losses.check("acme_two", mixed=False)


def test_edgeres_own_wins_and_the_list_says_so(path: Path) -> None:
    _package(path, "acme", "datasets", {"fashion_mnist": "acme_own"}, acme_own="raise OSError")
    assert datasets.PLUGINS.load("fashion-mnist").__name__ == "edgeres.datasets.fashion_mnist"
    assert datasets.names().count("fashion-mnist") == 1
    (why,) = datasets.PLUGINS.troubles()
    assert "edgeres has its own of this name, which is used" in why


TARGET = """
SUMMARY = RUNTIME = PACKAGE = 'x'
PRECISIONS, SUFFIX, EXTRA, SCHEMES = ('fp32',), %r, None, {}
def export(): ...
read = structure = session = tracer = export
"""


def test_a_files_name_says_whose_it_is(path: Path, tmp_path: Path) -> None:
    _package(path, "acme", "targets", {"one": "acme_one", "two": "acme_two", "sub": "acme_sub"},
             acme_one=TARGET % ".acme", acme_two=TARGET % ".acme",
             acme_sub=TARGET % ".acme.onnx")  # fmt: skip
    (tmp_path / "m.acme").write_bytes(b"")
    with pytest.raises(BadInput, match=r"target '\*.acme' is in acme 2.0"):
        targets.of_file(tmp_path / "m.acme")
    with pytest.raises(MissingComponent, match=r"files that end on .onnx are those of another"):
        targets.load("sub-fp32")
    assert targets.load("one-fp32")[1] == "fp32"
    with pytest.raises(BadInput, match="unknown target 'one-int8'"):
        targets.load("one-int8")
    with pytest.raises(MissingComponent, match="target 'one-fp32' needs x: pip install 'x'"):
        targets.require("one-fp32")


RUNTIME = """
SUMMARY = HOW = LICENCE = 'x'
NAMES, TAKES, LIMITS = {'acme-npu': '', 'tflm': ''}, ('tflite-int8',), {}
def ask(question): ...
"""


SOURCE = """
SUMMARY, BLACK_BOX = 'x', %s
def check(rest): ...
keyed = fetch = check
"""


def test_only_a_black_box_has_to_be_opened(path: Path) -> None:
    _package(path, "acme", "teachers", {"box": "acme_box", "net": "acme_net"},
             acme_box=SOURCE % True, acme_net=SOURCE % False)  # fmt: skip
    assert teachers.parse("net:x") == ("net", "x")
    with pytest.raises(MissingComponent, match=r"it is a black box, and lacks open\(\)"):
        teachers.parse("box:x")


def test_runtimes_names_are_looked_up_in_packages_last(path: Path) -> None:
    _package(path, "acme", "runtimes", {"acme": "acme_rt"}, acme_rt=RUNTIME)
    assert runtimes.module_name("tflm") == "tflm"
    assert runtimes.module_name("acme-npu") == "acme" and "acme-npu" in runtimes.names()
    before = runtimes.identity("acme-npu")
    (path / "acme_rt.py").write_text(RUNTIME + "# changed\n", "utf-8")
    assert runtimes.identity("acme-npu") != before
    _package(path, "other", "runtimes", {"other": "acme_other"}, acme_other=RUNTIME)
    plugins._installed.cache_clear()
    with pytest.raises(BadInput, match=r"runtime 'acme-npu' is in acme 2\.0 and other 2"):
        runtimes.module_name("acme-npu")


def test_notes_that_cannot_be_read_hide_no_other(path: Path) -> None:
    _package(path, "acme", "losses", {"fine": "acme_fine"}, acme_fine=LOSS)
    _package(path, "garbage", "losses", {"x": "y"})
    (path / "garbage-2.0.dist-info/entry_points.txt").write_bytes(b"\xff\xfe[[[\n=\n")
    losses.check("fine", mixed=False)


@pytest.mark.parametrize("arguments", [
    ("--help",), ("list", "targets", "--help"), ("list", "recipes"), ("list", "runs"),
    ("run", "quickstart", "--dry-run"),
])  # fmt: skip
def test_packages_are_not_looked_at_where_nobody_asks(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """Each name of the recipe is edgeres' own: no package's notes are read."""
    code = ("import sys\nfrom edgeres import plugins\n"
            "def look(path): raise AssertionError('packages were looked at')\n"
            "plugins._installed = look\n"
            f"sys.argv = ['edgeres', *{arguments!r}]\n"
            "from edgeres.__main__ import main\nmain()\n")  # fmt: skip
    done = _python(None, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_broken_one_stops_no_other_command(tmp_path: Path) -> None:
    site = tmp_path / "site"
    _package(site, "acme", "targets", {"acme": "acme_bad"}, acme_bad="raise SystemExit(7)")
    for arguments in (["--help"], ["list", "targets"], ["run", "quickstart", "--dry-run"]):
        done = _edgeres(site, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    shown = _json(site, "list", "targets", cwd=tmp_path)
    (why,) = (row["for"] for row in shown if row["from"] == "acme 2.0")
    assert why.startswith("acme 2.0: its target 'acme' can't be used: ")


def test_nothing_is_found_or_loaded_in_the_working_folder(site: Path, tmp_path: Path) -> None:
    """Not even a module of the same name as an installed plugin's."""
    mark = tmp_path / "ran"
    bad = f"open({str(mark)!r}, 'w').close()\n{LOSS}"
    _package(tmp_path, "here", "losses", {"here": "here_bad"}, here_bad=bad)
    (tmp_path / "edgeres_example").mkdir()
    for name in ("__init__", "l1"):
        (tmp_path / "edgeres_example" / f"{name}.py").write_text(bad, "utf-8")
    found = {row["loss"]: row["from"] for row in _json(site, "list", "losses", cwd=tmp_path)}
    assert found["l1"] == ORIGIN and "here" not in found
    assert not mark.exists()


# --- what the pages say -------------------------------------------------------------------------


def test_the_page_has_the_sample_as_it_is() -> None:
    page = (ROOT / "docs/plugins.md").read_text("utf-8")
    files = [SAMPLE / "pyproject.toml", *sorted((SAMPLE / "edgeres_example").glob("[!_]*.py"))]
    for file in files:
        name, kind = file.relative_to(SAMPLE), {".py": "python"}.get(file.suffix, "toml")
        assert f"`{name}`:\n\n```{kind}\n{file.read_text('utf-8')}```\n" in page, name
    assert f"```yaml{RECIPE}```\n" in page
    assert page.count("\n```\n") == len(files) + 1, "another block, which nothing checks"


KINDS = {
    "A target": targets.PLUGINS, "A runtime": runtimes.PLUGINS, "A data set": datasets.PLUGINS,
    "A loss": losses.PLUGINS, "A source of teachers": teachers.PLUGINS,
    "A device, a kind of device, a runner": devices.PLUGINS,
}  # fmt: skip


@pytest.mark.parametrize("title", KINDS)
def test_the_page_on_adding_names_all_that_a_module_has(title: str) -> None:
    page = (ROOT / "docs/adding.md").read_text("utf-8")
    section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    said = set(re.findall(r"`(\w+)(?:\([\w, ]*\))?`", section.replace("\n", " ")))
    wanted = {name.removesuffix("()") for name in plugins._lacking(None, KINDS[title].protocol)}
    assert wanted - said == set()


def test_each_path_that_the_pages_name_is_there() -> None:
    for page in ("adding.md", "plugins.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        paths = set(re.findall(r"`((?:edgeres|tests|docs)/[\w./-]+)`", text))
        assert len(paths) > 5
        assert [path for path in paths if not (ROOT / path).exists()] == []
    folders = re.findall(
        r"`((?:edgeres/)\w+)/_?\w*<\w+>\.py`", (ROOT / "docs/adding.md").read_text()
    )
    assert len(folders) >= 6 and all((ROOT / folder).is_dir() for folder in folders)
