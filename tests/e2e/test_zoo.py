"""Networks of torchvision's and timm's own code, untrained, to every int8 file: `make test-matrix`.

Their batch statistics are those of the images. So few and such answers make agreement a coarse
measure: the certificate's other gates are asked for as they are.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from conftest import needs
from torch import nn

from edgeres import targets
from edgeres.compression import budgets, criteria, integers, ptq
from edgeres.compression.graph import wiring
from edgeres.compression.prune import prune
from edgeres.compression.qat import QatModel
from edgeres.disk import file_sha256
from edgeres.models import modules
from edgeres.models.shapes import shapes_of
from edgeres.network.from_torch import from_module
from edgeres.network.module import NetworkModule
from edgeres.recipe import TrainSection, VerifySection
from edgeres.teachers import _library
from edgeres.training import loop, objectives
from edgeres.training.inference import prepared
from edgeres.training.views import Labelled
from edgeres.types import ExportedFile
from edgeres.verification.certificate import Reference, certify

pytestmark = [
    pytest.mark.skipif("EDGERES_MATRIX" not in os.environ, reason="`make test-matrix` runs it"),
    pytest.mark.usefixtures("zoo"),
    pytest.mark.turns,
]
NETWORKS = (
    "torchvision:resnet18", "torchvision:resnext50_32x4d", "torchvision:mobilenet_v2",
    "torchvision:mobilenet_v3_small", "torchvision:mnasnet0_5", "torchvision:efficientnet_b0",
    "torchvision:regnet_y_400mf", "torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5",
    "torchvision:densenet121", "timm:efficientnet_lite0", "timm:mobilenetv2_050",
    "timm:mobilenetv4_conv_small", "timm:lcnet_050", "timm:fbnetc_100", "timm:spnasnet_100",
    "timm:semnasnet_050", "timm:hardcorenas_a", "timm:tinynet_e", "timm:regnetx_002",
    "timm:resnet10t", "timm:resnet18d", "timm:seresnet18", "timm:resnetv2_18",
    "timm:ghostnet_100", "timm:selecsls42",
)  # fmt: skip
INTEGER = ("tflite-int8", "onnx-int8", "qoperator-int8", "coreml-int8", "executorch-int8",
           "tensorrt-int8")  # fmt: skip
PX = 64


def images() -> Labelled:
    """Soft blots of colour: 96, in 10 classes that mean nothing."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(96, 3, PX // 8, PX // 8, generator=generator)
    fine = nn.functional.interpolate(coarse, size=(PX, PX), mode="bilinear")
    return Labelled((fine * 255).to(torch.uint8), torch.arange(96) % 10)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> NetworkModule:
    """One of them."""
    return built(request.param)


def built(called: str) -> NetworkModule:
    """A network such as `timm:lcnet_050`, with batch statistics that fit the images."""
    library, name = called.split(":")
    model = from_module(_library.built(library, name, 10), PX, name=name).module
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean of all batches
        norm.reset_running_stats()
    with torch.no_grad():
        model.train()(prepared(images().images[:64], model.spec.preprocess))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    return model.eval()


@pytest.mark.parametrize("target", INTEGER)
def test_quantized_as_it_is(network: NetworkModule, target: str, tmp_path: Path) -> None:
    folded, scales = ptq.quantize(network, images().images[:64])
    _certified(target, network, folded, scales, tmp_path)


def test_pruned_and_trained_in_integers(network: NetworkModule, tmp_path: Path) -> None:
    budget = budgets.macs(shapes_of(network, PX), 0.7)
    slim = prune(network, budget, round_to=4, criterion=lambda _: criteria.magnitude())
    qat = QatModel(slim, freeze_observers=0.5, freeze_batchnorm=0.5)
    data = images()
    qat.calibrate(data.images[:64])
    settings = TrainSection(epochs=1, batch_size=32, learning_rate=0.001, augment=())
    loop.fit(
        qat.trainee(), data, data, settings, objectives.supervised(slim.spec.preprocess, 0.0),
        seed=0, work=tmp_path / "work", tick=lambda *_: None,
    )  # fmt: skip
    folded, scales = qat.finish()
    for target in ("tflite-int8", "onnx-int8"):
        _certified(target, slim, folded, scales, tmp_path)


def _certified(
    name: str, model: modules.Classifier, folded: modules.Classifier, scales: dict, folder: Path
) -> None:
    if name.startswith("executorch") and any(w.kind == "sigmoid" for w in wiring(folded.spec)):
        pytest.skip("XNNPACK has no integer sigmoid; its gate says so")
    data, (module, precision) = images(), targets.load(name)
    needs(module.PACKAGE)
    own, x = targets.scales_for(name, scales), prepared(data.images, folded.spec.preprocess)
    with torch.no_grad():
        expected = integers.integer_graph(folded, own)(x).numpy()
        before = model.eval()(x).numpy()
    path = folder / f"{name}{module.SUFFIX}"
    ends = module.export(targets.Source(folded, own), precision, path)
    exported = ExportedFile(name, path.name, file_sha256(path), 0, *ends)
    reference = Reference(folded, own, expected, before, data.images, data.labels)
    found = certify(path, exported, reference, VerifySection(agreement=0.95), lambda *_: None)
    if found.parity is not None:
        print(f"{name} {model.spec.name}: agreement {found.parity.agreement:.3f}, "
              f"at most {found.parity.worst:.0f} codes")  # fmt: skip
    assert [gate.sentence() for gate in found.gates if not gate.passed] == []
    assert not found.graph.float_operators()
