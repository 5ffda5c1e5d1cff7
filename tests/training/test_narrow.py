"""Networks whose gradients crash oneDNN in channels-last memory: narrow ones with shortcuts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeres.models import resnet, spec
from edgeres.training.inference import narrow

_WORK = {
    "training": "loop.fit(Trainee.of(model, p), data, data, settings, supervised, seed=0, "
    "work=work, tick=tick)",
    "QAT": "qat = QatModel(model, freeze_observers=0.5, freeze_batchnorm=0.5); "
    "qat.calibrate(data.images); loop.fit(qat.trainee(), data, data, settings, supervised, seed=0, "
    "work=work, tick=tick)",
    "compiled": "loop.fit(Trainee.of(model, p), data, data, settings.model_copy("
    "update={'compile': True}), supervised, seed=0, work=work, tick=tick)",
    "taylor": "criteria.taylor(inference.in_layout(model, p), data, supervised)",
    "diagnose": "_findings.gradients(inference.in_layout(model, p), "
    "inference.prepared(data.images, p), data.labels)",
}
_PROGRAM = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
from conftest import images
from edgeres.compression import criteria
from edgeres.compression.qat import QatModel
from edgeres.models import resnet, spec
from edgeres.recipe import TrainSection
from edgeres.training import _findings, inference, loop, objectives
from edgeres.training.loop import Trainee
from edgeres.training.views import Labelled
model = resnet.build(spec.parse("resnet8-w0.5", 10, spec.default_preprocess(48)), seed=0)
p = model.spec.preprocess
data = Labelled(images(32, 48), torch.arange(32) % 10)
settings = TrainSection(epochs=1, batch_size=16, learning_rate=0.01, augment=())
supervised, work, tick = objectives.supervised(p, 0.0), Path({work!r}), lambda *_: None
{code}
print("done")
"""


@pytest.mark.parametrize("name", _WORK)
def test_its_gradients_are_computed_and_the_process_lives(name: str, tmp_path: Path) -> None:
    program = _PROGRAM.format(
        tests=str(Path(__file__).parents[1]), work=str(tmp_path), code=_WORK[name]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]


def test_which_networks_are_meant() -> None:
    for name, expected in (("resnet8-w0.5", True), ("resnet8", False), ("resnet18-w0.1", True)):
        model = resnet.build(spec.parse(name, 10, spec.default_preprocess(48)), seed=0)
        assert narrow(model) == expected, name
