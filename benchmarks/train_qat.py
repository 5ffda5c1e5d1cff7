"""Quantization-aware training of a pretrained CIFAR-10 ResNet, for `peers.py --qat FOLDER`.

    .venv/bin/python benchmarks/train_qat.py --data data/cifar10 \\
        --weights data/weights --out FOLDER [--network resnet20]
        [--teachers resnet56]

The float network goes on learning while it is quantized, from the mean logits of its teachers.
Writes a folder with the folded network and its scales. Test images are not looked at.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from _cifar_networks import arguments, calibration, network, splits

from edgeres.compression.qat import QatModel
from edgeres.models import weights
from edgeres.recipe import TrainSection
from edgeres.teachers.ensemble import Ensemble
from edgeres.training import loop, objectives
from edgeres.training.answers import Teacher, as_teacher
from edgeres.training.views import Labelled
from edgeres.types import to_json


def main() -> None:
    """Train and save."""
    parser = arguments(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--teachers", nargs="+", default=["resnet56"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = network(given.weights, given.network)
    members = [as_teacher(network(given.weights, name)) for name in given.teachers]
    teacher = Ensemble(members, probabilities=False)
    train, validation, _ = splits(given.data)
    quantized = QatModel(model, freeze_observers=0.5, freeze_batchnorm=0.6)
    quantized.calibrate(calibration(train))
    history = trained(quantized, teacher, train, validation, given.epochs, given.learning_rate,
                      given.seed)  # fmt: skip
    folded, scales = quantized.finish()
    given.out.mkdir(parents=True, exist_ok=True)
    weights.save(given.out, folded)
    (given.out / "scales.json").write_text(json.dumps(to_json(scales), indent=1), "utf-8")
    print(json.dumps(history))


def trained(
    quantized: QatModel, teacher: Teacher, train: Labelled, validation: Labelled,
    epochs: int, learning_rate: float, seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train in place, from a teacher's logits; what each epoch came to."""
    preprocess = quantized.model.spec.preprocess
    objective = objectives.distilled(teacher, preprocess, temperature=4, alpha=0.9, smoothing=0)
    settings = TrainSection(epochs=epochs, batch_size=128, warmup_epochs=0.1,
                            learning_rate=learning_rate, augment=("crop", "flip"))  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        return loop.fit(quantized.trainee(), train, validation, settings, objective,
                        seed=seed, work=Path(work), tick=_tick)  # fmt: skip


def _tick(done: int, total: int, note: str) -> None:
    if done % 50 == 0:
        print(f"{done}/{total} {note}", flush=True)


if __name__ == "__main__":
    main()
