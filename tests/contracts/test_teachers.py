"""Every source of teachers: what it refuses, and, of those that need no download, what it gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import images, network

from edgeres import targets, teachers
from edgeres.errors import BadInput, EdgeresError
from edgeres.models.modules import fold_batchnorm
from edgeres.teachers import Found, Wanted

CLASSES, PX = 10, 16


def _checkpoint(folder: Path) -> str:
    torch.save(network("resnet8").state_dict(), folder / "net.pth")
    return str(folder / "net.pth")


def _exported(target: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        module, precision = targets.load(target)
        path = folder / f"net{module.SUFFIX}"
        module.export(targets.Source(fold_batchnorm(network("resnet8"))), precision, path)
        return str(path)

    return write


def _scripted(folder: Path) -> str:
    program = torch.export.export(network("resnet8"), (torch.zeros(1, 3, PX, PX),))
    torch.export.save(program, folder / "net.pt2")
    return str(folder / "net.pt2")


REST: dict[str, tuple[Callable[[Path], str], int]] = {
    "checkpoint": (_checkpoint, CLASSES), "onnx": (_exported("onnx-fp32"), CLASSES),
    "tflite": (_exported("tflite-fp32"), CLASSES), "torch": (_scripted, CLASSES),
    "ensemble": (lambda p: json.dumps([f"checkpoint:{_checkpoint(p)}"] * 2), CLASSES),
    "edges": (lambda p: "20", 3), "pretrained": (lambda p: "cifar10-resnet8", CLASSES),
}  # fmt: skip


@pytest.fixture(params=teachers.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def asked(name: str, tmp_path: Path) -> tuple[str, Wanted]:
    """What a recipe writes behind the source's name, and what is wanted of it."""
    if name not in REST:
        pytest.skip("its weights are downloaded, or its framework isn't here")
    write, classes = REST[name]
    wanted = Wanted(None, classes, None, PX, size_px=None if name == "edges" else PX,
                    mean=(0.5,), std=(0.25,))  # fmt: skip
    (folder := tmp_path / "files").mkdir()
    return write(folder), wanted


def _fetched(name: str, rest: str, wanted: Wanted, out: Path) -> Found:
    from edgeres.models import weights

    out.mkdir()
    source = teachers.source(name)
    source.check(rest)
    found = source.fetch(rest, wanted, out)
    if found.network is not None:
        weights.save(out, found.network)
    return found


def test_it_answers_the_same_each_time(
    name: str, asked: tuple[str, Wanted], tmp_path: Path
) -> None:
    rest, wanted = asked
    module, sample = teachers.source(name), images(6, PX)
    found = [_fetched(name, rest, wanted, tmp_path / place) for place in ("a", "b")]
    answers = [teachers.load(tmp_path / place).answer(sample) for place in ("a", "b")]
    for one, out in zip(found, ("a", "b"), strict=True):
        assert one.name and (one.network is None) == (tmp_path / out / "teacher.json").exists()
        if one.network is None:
            assert module.BLACK_BOX or getattr(module, "unknown", None)
    assert answers[0].shape == (6, wanted.classes) and answers[0].dtype == torch.float32
    assert torch.isfinite(answers[0]).all() and answers[0].std() > 0
    assert torch.equal(answers[0], answers[1])
    alone = torch.cat([teachers.load(tmp_path / "a").answer(image[None]) for image in sample])
    torch.testing.assert_close(alone, answers[0], atol=1e-4, rtol=1e-4)


def test_what_identifies_it_is_data_and_stays(name: str, asked: tuple[str, Wanted]) -> None:
    rest, _ = asked
    source = teachers.source(name)
    assert source.keyed(rest) == source.keyed(rest)
    assert json.loads(json.dumps(source.keyed(rest))) == source.keyed(rest)


def test_other_classes_than_the_datas_are_refused(
    name: str, asked: tuple[str, Wanted], tmp_path: Path
) -> None:
    import dataclasses

    rest, wanted = asked
    with pytest.raises(BadInput) as refused:
        _fetched(name, rest, dataclasses.replace(wanted, classes=7), tmp_path / "out")
    assert "\n" not in str(refused.value) and "7" in str(refused.value)


def test_a_name_that_stands_for_nothing_is_one_sentence(name: str, tmp_path: Path) -> None:
    module = teachers.source(name)
    assert module.SUMMARY and "\n" not in module.SUMMARY
    rest = json.dumps(["checkpoint:/nowhere"]) if name == "ensemble" else str(tmp_path / "nowhere")
    with pytest.raises(EdgeresError) as refused:
        module.check(rest)
    assert "\n" not in str(refused.value)
