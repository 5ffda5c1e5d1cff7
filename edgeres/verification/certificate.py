"""The verdict on one exported file: integer only, same scales, same answers.

A file, the network it was written from, and what that network answered flow in; gates (measured
value, limit, passed) flow out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgeres import targets
from edgeres.artifact import file_sha256
from edgeres.models.resnet import ResidualBlock, ResNet
from edgeres.recipe import VerifySection
from edgeres.targets._graph import FileGraph
from edgeres.training.loop import prepared
from edgeres.types import Accuracy, ExportedFile, Gate, ScaleTable
from edgeres.verification import parity
from edgeres.verification.scales import Audit, audit

_CHUNK = 500


@dataclass(frozen=True)
class Reference:
    """What a file must reproduce.

    Attributes:
        model: the folded network.
        scales: its trained scales; None for a float file.
        logits: (N, C) of the network (or of its quantized graph) on `images`.
        images: uint8 (N, 3, H, W); labels: (N,).
    """

    model: ResNet
    scales: ScaleTable | None
    logits: np.ndarray
    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Certificate:
    """The verdict on one file; `parity` and `accuracy` are None where its runtime doesn't exist."""

    target: str
    gates: tuple[Gate, ...]
    graph: FileGraph
    audit: Audit | None
    parity: parity.Parity | None
    accuracy: Accuracy | None
    logits: np.ndarray | None
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate is met."""
        return all(gate.passed for gate in self.gates)


def certify(
    path: Path,
    exported: ExportedFile,
    reference: Reference,
    limits: VerifySection,
    tick: Callable[[int, int, str], None],
) -> Certificate:
    """Inspect a file, audit its scales and run it on every sample of the reference.

    Raises:
        BadInput: the file is damaged, or its format unknown.
    """
    target, precision = targets.load(exported.target)
    graph = target.read(path)
    same = float(file_sha256(path) == exported.sha256)
    gates = [Gate("file unchanged since export", same, "==", 1)]
    notes: list[str] = []
    found = None
    if reference.scales is not None:
        found = audit(graph, reference.model, reference.scales)
        gates += integer_gates(graph, reference.model)
        gates.append(Gate("scales that differ from training", len(found.differing), "==", 0))
        notes += found.differing[:3]
        notes += [f"float operator: {name}" for name in graph.float_operators()[:3]]
    measured, accuracy, logits = None, None, _answers(path, exported, reference, tick)
    if logits is None:
        notes.append("its runtime doesn't exist on this system: structure and scales only")
    else:
        integer = exported.output.quantization
        step = integer.scale[0] if integer else None
        measured = parity.compare(reference.logits, logits, step)
        accuracy = Accuracy(int((logits.argmax(1) == reference.labels.numpy()).sum()), len(logits))
        gates.append(Gate("top-1 agreement", measured.agreement, ">=", limits.agreement))
        gates.append(_difference_gate(measured, precision, limits))
    return Certificate(exported.target, tuple(gates), graph, found, measured, accuracy, logits,
                       tuple(notes))  # fmt: skip


def integer_gates(graph: FileGraph, model: ResNet) -> list[Gate]:
    """What makes an int8 file an int8 file."""
    adds = sum(isinstance(m, ResidualBlock) for m in model.modules())
    gates = [
        Gate("float operators", len(graph.float_operators()), "==", 0),
        Gate("residual adds", graph.count("add"), "==", adds),
    ]
    if graph.format == "tflite":
        gates.append(Gate("quantize, dequantize and transpose operators",
                          graph.count("boundary") + graph.count("transpose"), "==", 0))  # fmt: skip
    if graph.format in ("tflite", "onnx"):
        integer = {graph.input.dtype, graph.output.dtype} <= {"int8", "uint8", "int16"}
        gates.append(Gate("integer input and output", float(integer), "==", 1))
    return gates


def _difference_gate(found: parity.Parity, precision: str, limits: VerifySection) -> Gate:
    if targets.is_integer(precision):
        return Gate("worst difference", found.worst, "<=", limits.worst_codes, "codes")
    limit = limits.half_tolerance if precision == "fp16" else limits.float_tolerance
    return Gate("worst difference", found.worst, "<=", limit, "logits")


def _answers(
    path: Path,
    exported: ExportedFile,
    reference: Reference,
    tick: Callable[[int, int, str], None],
) -> np.ndarray | None:
    target, _ = targets.load(exported.target)
    session = target.session(path)
    if session is None:
        return None
    parts = []
    for chunk in reference.images.split(_CHUNK):
        x = prepared(chunk, reference.model.spec.preprocess).contiguous().numpy()
        outputs = session.run(targets.encode(x, exported.input))
        parts.append(targets.decode(outputs, exported.output))
        tick(sum(map(len, parts)), len(reference.images), f"running {path.name}")
    return np.concatenate(parts)
