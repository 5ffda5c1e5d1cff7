"""Parts, recomputing and precision change how a step is computed, not what it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import images

from edgeres.errors import BadInput
from edgeres.models import resnet, spec
from edgeres.recipe import TrainSection
from edgeres.training import loop, objectives
from edgeres.training.engine import Engine
from edgeres.training.views import Labelled

PREPROCESS = spec.default_preprocess(8)
DATA = Labelled(images(40, px=8), torch.arange(40) % 4)


def fresh() -> resnet.ResNet:
    return resnet.build(spec.parse("resnet8-w0.5", 4, PREPROCESS))


def trained(work: Path, **settings: Any) -> tuple[resnet.ResNet, list[dict[str, Any]]]:
    model = fresh()
    work.mkdir()
    given = TrainSection(epochs=2, batch_size=16, learning_rate=0.02, **settings)
    history = loop.fit(loop.Trainee.of(model, PREPROCESS), DATA, DATA, given,
                       objectives.supervised(PREPROCESS, 0.0), seed=0, work=work,
                       tick=lambda *_: None)  # fmt: skip
    return model, history


def test_parts_of_any_size_add_up_to_the_batchs_gradient() -> None:
    supervised = objectives.supervised(PREPROCESS, 0.0)
    chosen = torch.randperm(40)[:10]

    def gradients(accumulate: int) -> tuple[float, list[torch.Tensor]]:
        model = fresh().eval()  # batch statistics would be those of a part
        engine = Engine(model, TrainSection(accumulate=accumulate))
        loss = engine.gradients(chosen, lambda network, part: supervised(
            network, DATA.images[part], DATA.labels[part]))  # fmt: skip
        return loss.item(), [p.grad for p in model.parameters() if p.grad is not None]

    loss, whole = gradients(1)
    for accumulate in (3, 16):  # uneven, and more than there are images
        again, parts = gradients(accumulate)
        assert again == pytest.approx(loss, rel=1e-5)
        for a, b in zip(whole, parts, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_recomputed_blocks_end_in_the_same_bits_and_are_left_alone(tmp_path: Path) -> None:
    plain, _ = trained(tmp_path / "plain")
    recomputed, _ = trained(tmp_path / "recomputed", checkpointing=True)
    state = recomputed.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    assert not any("forward" in vars(module) for module in recomputed.modules())


def test_bf16_learns_about_the_same_and_leaves_float_weights(tmp_path: Path) -> None:
    plain, exact = trained(tmp_path / "plain")
    half, history = trained(tmp_path / "half", precision="bf16")
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    assert history[-1]["loss"] == pytest.approx(exact[-1]["loss"], rel=0.05)
    assert not torch.equal(half.fc.weight, plain.fc.weight)  # it was used


def test_compiled_it_learns_the_same_and_keeps_its_tensors_names(tmp_path: Path) -> None:
    plain, exact = trained(tmp_path / "plain")
    compiled, history = trained(tmp_path / "compiled", compile=True)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert history[-1]["loss"] == pytest.approx(exact[-1]["loss"], rel=1e-3)
    torch.testing.assert_close(compiled.fc.weight, plain.fc.weight, atol=1e-3, rtol=1e-2)


def test_without_a_compiler_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BadInput, match=r"compile: needs a C\+\+ compiler .* and there is none"):
        Engine(fresh(), TrainSection(compile=True))


def test_what_is_not_to_be_had_here_is_said() -> None:
    with pytest.raises(BadInput, match="fp16 needs a CUDA device; use bf16"):
        Engine(fresh(), TrainSection(precision="fp16"))
    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match="no CUDA device here; use cpu or auto"):
            Engine(fresh(), TrainSection(device="cuda"))
        assert Engine(fresh(), TrainSection(device="auto")).device.type == "cpu"


RECIPE = """
name: together
data: {source: digits, size: 8}
train: {epochs: 2, batch_size: 64, augment: [crop], sync_batchnorm: true, learning_rate: 0.02}
teacher: {model: resnet8-w0.5}
"""


def test_two_processes_learn_like_one(tmp_path: Path) -> None:
    """The same loss curve to 1e-4 (sums in another order), with batch norm over both."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    curves = []
    for procs in (1, 2):
        done = subprocess.run(
            [sys.executable, "-m", "edgeres", "run", "recipe.yaml", "--procs", str(procs),
             "--runs", f"runs{procs}", "--json"],
            cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
            text=True, check=False, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        result = json.loads(done.stdout)  # one document: only the first process speaks
        path = tmp_path / result["artifacts"]["teacher"]["path"]
        lines = (path / "history.jsonl").read_text().splitlines()
        curves.append([json.loads(line)["loss"] for line in lines])
        assert not list((tmp_path / f"runs{procs}").rglob("resume.pt"))
    assert len(curves[0]) == 2
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
