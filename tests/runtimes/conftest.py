"""Int8 files of the shared network, and what they have to reproduce."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import images
from runtime_files import IMAGES

from edgeres import targets
from edgeres.compression.integers import integer_graph
from edgeres.disk import file_sha256
from edgeres.training.inference import predict
from edgeres.types import ExportedFile
from edgeres.verification.certificate import Reference


@pytest.fixture(scope="module")
def exported(
    quantized: tuple, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, ExportedFile, Reference]]:
    """A target's name -> an int8 file of the shared network, and what it must reproduce."""
    model, folded, scales = quantized
    sample, spec = images(IMAGES), model.spec.preprocess
    logits = predict(integer_graph(folded, scales), sample, spec).numpy()
    before = predict(model, sample, spec).numpy()
    labels = torch.from_numpy(logits.argmax(1))
    reference = Reference(folded, scales, logits, before, sample, labels)
    made: dict[str, tuple[Path, ExportedFile, Reference]] = {}

    def file(name: str) -> tuple[Path, ExportedFile, Reference]:
        if name not in made:
            target, precision = targets.load(name)
            path = tmp_path_factory.mktemp(name) / f"m{target.SUFFIX}"
            first, last = target.export(targets.Source(folded, scales, {}), precision, path)
            about = ExportedFile(name, path.name, file_sha256(path), 1, first, last)
            made[name] = path, about, reference
        return made[name]

    return file
