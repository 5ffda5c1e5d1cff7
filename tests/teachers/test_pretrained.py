"""The networks that edgeres brings: what is said of them is so, and they go wherever others go."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images
from in_process import edgeres

from edgeres import listing
from edgeres.commands.complete import lists
from edgeres.compression.given import held
from edgeres.compression.integers import integer_graph
from edgeres.models import weights
from edgeres.models.modules import complexity
from edgeres.network.from_tflite import from_tflite
from edgeres.recipe import load, recipes
from edgeres.teachers import pretrained
from edgeres.training.inference import predict


@pytest.fixture(params=pretrained.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_said_of_it(name: str) -> None:
    card, model = pretrained.card(name), weights.load(pretrained.path(name))
    file = pretrained.path(f"{name}-int8").read_bytes()
    assert (model.spec.name, model.spec.classes) == (card["model"], card["classes"])
    assert complexity(model.spec) == (card["parameters"], card["macs"])
    assert card["int8"]["sha256"] == hashlib.sha256(file).hexdigest()
    assert card["int8"]["size_bytes"] == len(file)
    recipe = load(next(n for n, _ in recipes() if n == card["recipe"]), [])
    assert recipe.distill and recipe.distill.student == card["model"]
    assert recipe.teacher.model == card["teacher"]["model"] and recipe.teacher.checkpoint is None
    log = (pretrained.path(name) / "history.jsonl").read_text("utf-8").splitlines()
    assert len(log) == recipe.distill.train.epochs
    last = json.loads(log[-1])
    assert abs(last["validation_top1"] - card["float"]["correct"] / card["float"]["n"]) < 0.02


def test_its_int8_file_is_that_network(name: str) -> None:
    """On images of no meaning, which tell networks apart better than pictures do."""
    model = weights.load(pretrained.path(name))
    read = from_tflite(pretrained.path(f"{name}-int8"), 32)
    assert read.integers is not None
    folded, scales, _ = held(read.module, read.integers)
    sample = images(200, 32)
    ours = predict(model, sample, model.spec.preprocess)
    codes = predict(integer_graph(folded, scales), sample, folded.spec.preprocess)
    correlation = np.corrcoef(ours.flatten(), codes.flatten())[0, 1]
    assert correlation > 0.98
    assert not torch.equal(ours, codes)


def test_files_without_any_data(tmp_path: Path) -> None:
    done = edgeres("export", "pretrained:cifar10-resnet8-int8", "--target", "onnx-int8",
                   "--out", "files", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "verified: each is the model" in done.stdout
    assert [p.name for p in (tmp_path / "files").glob("*.onnx")] == ["cifar10-resnet8-int8.onnx"]


def test_what_is_looked_into_by_name(tmp_path: Path) -> None:
    done = edgeres("diagnose", "pretrained:cifar10-resnet8", "--data", "digits", cwd=tmp_path)
    assert done.returncode in (0, 1), done.stderr
    assert "resnet8" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pretrained:cifar10-resnet9", "did you mean 'cifar10-resnet8'"),
        ("pretrained:cifar10-resnet8 --model resnet8", "--model is for a checkpoint file"),
        ("pretraind:cifar10-resnet8", "did you mean 'pretrained'"),
    ],
)
def test_names_that_are_none(line: str, says: str, tmp_path: Path) -> None:
    done = edgeres("quantize", *line.split(), "--data", "digits", cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


def test_lists_are_completed(tmp_path: Path) -> None:
    assert lists("pre") == ["pretrained"] and set(lists("")) == set(listing.LISTS)
    for name in set(listing.LISTS) - {"models"}:
        assert isinstance(listing.rows(name, tmp_path), list)
    assert "pretrained:cifar10-resnet20" in listing.text(listing.rows("pretrained", tmp_path))
