"""Folders with what a compiler made of a file: it has to be that, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from in_process import edgeres

from edgeres import targets
from edgeres.errors import BadInput
from edgeres.targets import _compiled
from edgeres.verification.structure import mismatches

COMPILED = [name for name in targets.names() if targets.compiled(name)]


@pytest.fixture(scope="module", params=COMPILED)
def made(
    request: pytest.FixtureRequest, quantized: tuple, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, targets.Source]:
    form = targets.compiled(request.param)
    if why := form.missing():
        pytest.skip(why)
    _, folded, scales = quantized
    path = tmp_path_factory.mktemp("made") / f"m{targets.load(request.param)[0].SUFFIX}"
    source = targets.Source(folded, scales, {}, npus=form.npus[-1:])
    targets.load(request.param)[0].export(source, "int8", path)
    return request.param, path, source


def _compiled_file(path: Path) -> Path:
    return max((f for f in path.glob("*/*") if f.is_file()), key=lambda f: f.stat().st_size)


def _changed(path: Path) -> None:
    """One byte where many values are: weights."""
    file = _compiled_file(path)
    data = bytearray(file.read_bytes())
    weights = next(i for i in range(0, len(data), 64) if len(set(data[i : i + 64])) > 50)
    data[weights + 32] ^= 1
    file.write_bytes(data)


def _cut(path: Path) -> None:
    file = _compiled_file(path)
    file.write_bytes(file.read_bytes()[:-1])


def _lost(path: Path) -> None:
    _compiled_file(path).unlink()


def _linked(path: Path) -> None:
    file = _compiled_file(path)
    shutil.move(file, path.parent / "elsewhere")
    file.symlink_to(path.parent / "elsewhere")


def _linked_folder(path: Path) -> None:
    folder = _compiled_file(path).parent
    shutil.move(folder, path.parent / "elsewhere")
    folder.symlink_to(path.parent / "elsewhere")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte": (_changed, "isn't what the compiler makes of"),
    "a byte less": (_cut, "isn't what the compiler makes of"),
    "a file less": (_lost, "is missing"),
    "a link": (_linked, "is missing"),
    "a link to a folder": (_linked_folder, "doesn't belong to it, or is a link"),
    "a file more": (lambda path: (path / "more.bin").write_bytes(b""), "doesn't belong to it"),
    "nothing compiled": (lambda path: shutil.rmtree(_compiled_file(path).parent),
                         "nothing in it is compiled"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_isnt_the_compilers_is_seen(
    fault: str, made: tuple[str, Path, targets.Source], tmp_path: Path
) -> None:
    name, path, source = made
    copy = tmp_path / path.name
    shutil.copytree(path, copy)
    plant, words = FAULTS[fault]
    plant(copy)
    structure = targets.load(name)[0].structure(copy, source, "int8")
    found = mismatches(structure, source.model, source.scales, "int8")
    assert any(words in sentence for sentence in found), found


def test_another_networks_compiled_file_is_seen(
    made: tuple[str, Path, targets.Source], tmp_path: Path
) -> None:
    """What was compiled is right, and what lies beside it is of a network with one other bias."""
    name, path, source = made
    bias = source.model.state_dict()["fc.bias"]
    before = bias.clone()
    bias += 1.0
    other = tmp_path / path.name
    try:
        targets.load(name)[0].export(source, "int8", other)
    finally:
        bias.copy_(before)
    inside = targets.compiled(name).inside(path)
    shutil.copyfile(inside, other / inside.name)
    structure = targets.load(name)[0].structure(other, source, "int8")
    found = mismatches(structure, source.model, source.scales, "int8")
    assert any("isn't what the compiler makes of" in sentence for sentence in found), found


def test_a_folder_of_another_kind(tmp_path: Path) -> None:
    for name in COMPILED:
        target, _ = targets.load(name)
        (empty := tmp_path / f"m{target.SUFFIX}").mkdir()
        with pytest.raises(BadInput, match="not a folder with model"):
            target.read(empty)


RECIPE = """
name: compiled
data: {source: digits, size: 16}
teacher: {model: resnet8}
quantize: {method: ptq}
export: {targets: [ethosu-int8], %s}
"""


@pytest.mark.parametrize(("npu", "code", "words"), [
    ("npu: []", 2, "has to know what for: set export.npu (--npu) to one of ethos-u55-32,"),
    ("npu: [ethos-u55-182]", 2, "unknown NPU 'ethos-u55-182' (did you mean 'ethos-u55-128'?)"),
    ("npu: [ethos-u55-128, rk3588]", 2, "rk3588 is for rknn-int8, which isn't one of"),
    ("npu: [ethos-u55-128]", 4, "isn't installed: edgeres runtimes install ethos-u55-"),
])  # fmt: skip
def test_what_for_is_asked_before_anything_is_trained(
    npu: str, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGERES_RUNTIMES", str(tmp_path / "none"))
    (tmp_path / "r.yaml").write_text(RECIPE % npu)
    done = edgeres("run", "r.yaml", cwd=tmp_path)
    assert done.returncode == code and words in done.stderr, done.stderr


def test_a_compiler_that_never_says_the_same_proves_nothing() -> None:
    """Memory that it never set is passed over where that is known of it, and only a little."""
    fresh, other = bytes(6400), bytes(6300) + b"\1" * 100
    anew = iter(os.urandom(6400) for _ in range(20))
    assert _compiled._same(fresh, fresh, 0.0, lambda: next(anew))
    assert not _compiled._same(other, fresh, 0.0, lambda: other)
    assert _compiled._same(other, fresh, 0.1, lambda: other)
    assert not _compiled._same(b"\2" * 6400, fresh, 0.1, lambda: next(anew))
