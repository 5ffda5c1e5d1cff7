"""A training that is killed goes on and ends in the same bits as one that never was."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from conftest import images, network

from edgeres.compression.qat import QatModel
from edgeres.errors import StorageError
from edgeres.recipe import TrainSection
from edgeres.training import keeper, loop, objectives
from edgeres.training.views import Labelled

SCRIPT = """
    import os, pathlib, signal, sys, torch
    from edgeres.models import resnet, spec, weights
    from edgeres.recipe import TrainSection
    from edgeres.training import keeper, loop, objectives
    from edgeres.training.views import Labelled

    torch.set_num_threads(1)
    keeper.EVERY_S = keeper._PATIENCE = 0  # after every step
    work, kill_at = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (80, 3, 8, 8), generator=generator, dtype=torch.uint8)
    data = Labelled(pixels, torch.arange(80) % 4)
    preprocess = spec.default_preprocess(8)
    model = resnet.build(spec.parse("resnet8-w0.5", 4, preprocess))

    def tick(done, total, note):
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = TrainSection(epochs=3, batch_size=16, learning_rate=0.05, ema=0.9,
                            augment=("crop", "flip", "cutout"))
    loop.fit(loop.Trainee.of(model, preprocess), data, data, settings,
             objectives.supervised(preprocess, 0.1), seed=1, work=work, tick=tick)
    weights.save(work, model)
"""


def run(work: Path, kill_at: int = 0) -> int:
    work.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT), str(work), str(kill_at)],
                          check=False)  # fmt: skip
    return done.returncode


def test_kill_9_in_mid_epoch_and_the_same_command_end_in_the_same_bytes(tmp_path: Path) -> None:
    assert run(tmp_path / "whole") == 0
    assert run(tmp_path / "killed", kill_at=8) == -9  # the third of five steps of epoch 2
    assert not (tmp_path / "killed/weights.safetensors").exists()
    position = torch.load(tmp_path / "killed/resume.pt", weights_only=True)["position"]
    assert (position["epoch"], position["step"]) == (1, 2)
    assert run(tmp_path / "killed") == 0
    whole, killed = ((tmp_path / n / "weights.safetensors") for n in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


def test_qat_goes_on_in_mid_epoch_with_the_ranges_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "EVERY_S", 0)
    monkeypatch.setattr(keeper, "_PATIENCE", 0)
    data = Labelled(images(48, px=8), torch.arange(48) % 10)
    settings = TrainSection(epochs=3, batch_size=16, learning_rate=0.01, augment=("crop",))

    def train(name: str, kill_at: int) -> str:
        def tick(done: int, total: int, note: str) -> None:
            if done == kill_at:
                raise KeyboardInterrupt

        model = network("resnet8-w0.5", px=8)
        qat = QatModel(model, freeze_observers=0.5, freeze_batchnorm=0.5)
        qat.calibrate(images(16, px=8))
        (tmp_path / name).mkdir(exist_ok=True)
        history = loop.fit(qat.trainee(), data, data, settings,
                           objectives.supervised(model.spec.preprocess, 0.0), seed=0,
                           work=tmp_path / name, tick=tick)  # fmt: skip
        folded, scales = qat.finish()
        state = {name: value.tolist() for name, value in folded.state_dict().items()}
        return json.dumps([history, state, repr(scales)])

    whole = train("whole", 0)
    with pytest.raises(KeyboardInterrupt):
        train("killed", kill_at=5)
    assert train("killed", 0) == whole


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "resume.pt").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(StorageError, match=r"resume\.pt: is damaged; remove it"):
        keeper.Keeper(tmp_path, {})
