"""Every int8 target of four networks, verified: the table of docs/verification.md.

    .venv/bin/python benchmarks/certificates.py --data data/cifar10 \\
        --weights data/weights [--network resnet20] [--float16]

resnet20 and resnet56: akamaster's CIFAR-10 weights, 512 training images to calibrate, all 10,000
test images. resnet18 and resnet50 at 224 px: random weights, random images. Printed: what `edgeres
verify` prints, and every gate of each target. --float16 rounds what lies between dequantize and
quantize of a Core ML program to float16, as chips without int8 arithmetic do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _cifar_networks import calibration, network, splits

from edgeres import targets
from edgeres.compression import ptq
from edgeres.compression.integers import integer_graph
from edgeres.disk import file_sha256, folder_size
from edgeres.errors import EdgeresError
from edgeres.models import resnet, spec, weights
from edgeres.recipe import VerifySection
from edgeres.stages.verify import row
from edgeres.targets import _mil_graph
from edgeres.targets._conversion import convert
from edgeres.text.files import verify
from edgeres.training.inference import evaluate
from edgeres.training.loop import Trainee
from edgeres.training.views import Labelled
from edgeres.types import ExportedFile, tensor_spec
from edgeres.verification.certificate import Certificate, Reference, certify


def main() -> None:
    """Quantize, export, verify, print."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--samples", type=int, help="of the test images; all if left out")
    parser.add_argument("--target", action="append", help="e.g. tflite-int8; repeat for several")
    parser.add_argument("--float16", action="store_true")
    given = parser.parse_args()
    if given.float16:
        _mil_graph.inside_kernels = lambda _: set()
    model, images, test = _task(given)
    folded, scales = ptq.quantize(model, images)
    before = _logits(resnet.fold_batchnorm(model), test)
    trained = _logits(integer_graph(folded, scales), test, folded)
    chosen = given.target or [n for n in targets.names() if targets.is_integer(n.split("-")[1])]
    rows, answers = [], {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder)
        weights.save(checkpoint, folded)
        for name in chosen:
            table = targets.scales_for(name, scales)
            logits = trained
            if table != scales:
                logits = _logits(integer_graph(folded, table), test, folded)
            reference = Reference(folded, table, logits, before, test.images, test.labels)
            begin = time.monotonic()
            try:
                certificate = _certificate(name, checkpoint, reference)
            except EdgeresError as error:
                print(f"{name}: {error}", flush=True)
                continue
            found = row(certificate)
            rows.append(found)
            if certificate.logits is not None and table == scales:
                answers[name] = certificate.logits
            gates = {g["name"]: g["measured"] for g in found["gates"]}
            print(f"{name}: {time.monotonic() - begin:.0f} s, {json.dumps(found['operators'])}")
            print(f"bit-equal {found['bit_equal']:.2%}, {json.dumps(gates)}", flush=True)
    print(verify({"files": rows, "failures": []}))
    step = scales["fc"].scale[0]  # some formats give codes, others what they stand for
    for one, other in itertools.combinations(answers, 2):
        same = (np.rint(answers[one] / step) == np.rint(answers[other] / step)).all(1)
        print(f"{one} and {other}: the same codes in {same.mean():.2%} of {len(same)} images")


def _certificate(name: str, checkpoint: Path, reference: Reference) -> Certificate:
    target, precision = targets.load(name)
    path = checkpoint / f"{precision}{target.SUFFIX}"
    begin = _processor_s()
    found = convert(checkpoint, reference.scales, name, path, {}, lambda: None)
    exported = ExportedFile(name, path.name, file_sha256(path), folder_size(path),
                            tensor_spec(found["input"]), tensor_spec(found["output"]))  # fmt: skip
    written = _processor_s()
    certificate = certify(path, exported, reference, VerifySection(), lambda *_: None)
    print(f"{name}: processor seconds: export {written - begin:.1f}, "
          f"verify {_processor_s() - written:.1f}", flush=True)  # fmt: skip
    return certificate


def _processor_s() -> float:
    """Of this process and of those that it waited for."""
    return sum(os.times()[:4])


def _task(given: argparse.Namespace) -> tuple[resnet.ResNet, torch.Tensor, Labelled]:
    if given.network in ("resnet18", "resnet50"):
        return _random(given.network, given.samples or 256)
    train, _, test = splits(given.data)
    test = Labelled(test.images[: given.samples], test.labels[: given.samples])
    return network(given.weights, given.network), calibration(train), test


def _random(name: str, samples: int) -> tuple[resnet.ResNet, torch.Tensor, Labelled]:
    """Random weights whose batch statistics have seen random images."""
    torch.manual_seed(0)
    model = resnet.build(spec.parse(name, 1000, spec.default_preprocess(224))).train()
    with torch.no_grad():
        for _ in range(2):
            model((torch.rand(8, 3, 224, 224) - 0.5) / 0.25)
    images = torch.randint(0, 256, (samples, 3, 224, 224), dtype=torch.uint8)
    return model.eval(), images[:32], Labelled(images, torch.zeros(samples, dtype=torch.int64))


def _logits(
    module: torch.nn.Module, test: Labelled, model: resnet.ResNet | None = None
) -> np.ndarray:
    described = (model or module).spec.preprocess
    return evaluate(Trainee(module, described, lambda training: None), test)[1].numpy()


if __name__ == "__main__":
    main()
