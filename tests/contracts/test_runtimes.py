"""Every runtime that is here: a file of its kind, asked twice, and what is no file."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import images
from runtime_files import needs

from edgeres import runtimes, scratch, targets
from edgeres.models.modules import fold_batchnorm
from edgeres.runtimes import _environment
from edgeres.runtimes._asking import Answer, ask
from edgeres.training.inference import prepared

IMAGES = 4
FAST = ("tflite-int8", "onnx-int8")  # what is asked of one that takes several


def _one_of_each() -> Iterator[str]:
    """Of a family, the first that answers and the first that only compiles."""
    for own in runtimes.PLUGINS.names():
        names = list(runtimes.module(own).NAMES)
        for answering in (True, False):
            yield from [n for n in names if runtimes.answers(n) == answering][:1]


@pytest.fixture(params=list(_one_of_each()))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def file(quantized: tuple, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple]:
    """A target's name -> a small file, images as it takes them, and its own runtime's answers."""
    model, folded, scales = quantized
    made: dict[str, tuple] = {}

    def write(target: str) -> tuple:
        if target not in made:
            module, precision = targets.load(target)
            integer = targets.is_integer(precision)
            path = tmp_path_factory.mktemp("file") / f"m{module.SUFFIX}"
            source = targets.Source(
                folded if integer else fold_batchnorm(model),
                targets.scales_for(target, scales) if integer else None,
            )
            first, _ = module.export(source, precision, path)
            x = prepared(images(IMAGES, seed=5), folded.spec.preprocess).contiguous().numpy()
            given = targets.encode(x, first)
            made[target] = path, given, module.session(path).run(given)
        return made[target]

    return write


def _target(name: str) -> str:
    takes = runtimes.load(name).TAKES
    return next((target for target in takes if target in FAST), takes[0])


def _asked(name: str, path: Path, given: np.ndarray | None) -> Answer:
    with scratch.folder("runtime") as folder:
        return ask(name, [(path, given)], folder)[0]


def test_it_answers_each_image_the_same_twice(name: str, file: Callable) -> None:
    needs(name)
    path, given, own = file(_target(name))
    one, two = (_asked(name, path, given) for _ in range(2))
    for answer in (one, two):
        assert answer.error == "" and answer.version
        assert (answer.outputs is not None) == runtimes.answers(name)
        assert answer.refused == ()
    if one.outputs is not None and two.outputs is not None:
        assert one.outputs.shape[0] == IMAGES and one.outputs[0].size == own[0].size
        assert np.array_equal(one.outputs, two.outputs)
        agreement = (one.outputs.reshape(IMAGES, -1).argmax(1) == own.argmax(1)).mean()
        assert agreement >= 0.75


def test_it_can_be_asked_without_images(name: str, file: Callable) -> None:
    needs(name)
    answer = _asked(name, file(_target(name))[0], None)
    assert answer.error == "" and answer.outputs is None


@pytest.mark.parametrize("content", [b"", b"not a model", b"abcdTFL3" + b"\xff" * 500])
def test_what_is_no_file_of_its_kind_is_said(name: str, content: bytes, tmp_path: Path) -> None:
    needs(name)
    path = tmp_path / f"m{targets.load(_target(name))[0].SUFFIX}"
    path.write_bytes(content)
    answer = _asked(name, path, np.zeros((1, 16, 16, 3), np.int8))
    assert answer.outputs is None
    assert answer.error or answer.refused
    assert "\n" not in answer.error


@pytest.mark.parametrize("own", runtimes.PLUGINS.names())
def test_its_module_stands_alone(own: str) -> None:
    """It is loaded where edgeres isn't, and each of its names is known."""
    module = runtimes.module(own)
    assert module.NAMES and module.TAKES and module.HOW and module.LICENCE
    assert set(module.TAKES) <= set(targets.names())
    for name in module.NAMES:
        assert runtimes.module_name(name) == own and runtimes.how(name)
        wanted = {"agreement", "worst_codes"} if runtimes.answers(name) else set(module.LIMITS)
        assert set(module.LIMITS) == wanted
        assert runtimes.identity(name) == runtimes.identity(name)
    for node in ast.walk(ast.parse(runtimes.source(own).read_text("utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else \
            [node.module or ""] if isinstance(node, ast.ImportFrom) else []  # fmt: skip
        assert not [n for n in names if n.partition(".")[0] == "edgeres"]
    if locked := _environment.lock(own):
        blocks = re.split(r"^(?=\S+==)", locked.read_text("utf-8"), flags=re.MULTILINE)[1:]
        assert blocks and all("--hash=sha256:" in block for block in blocks)
