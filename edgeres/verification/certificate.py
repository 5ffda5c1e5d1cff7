"""The verdict on one exported file: integer only, same scales, same layers, same answers.

A file, the network it was written from, and what that network answered flow in; gates (measured
value, limit, passed) flow out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch

from edgeres import targets
from edgeres.compression.graph import wiring
from edgeres.disk import file_sha256
from edgeres.errors import BadInput, EdgeresError
from edgeres.models.modules import Classifier
from edgeres.recipe import VerifySection
from edgeres.targets import BatchSession, Session, Source
from edgeres.targets._graph import FileGraph
from edgeres.targets._structure import VERSION_NOTE
from edgeres.training.inference import prepared
from edgeres.types import Accuracy, ExportedFile, Gate, ScaleTable
from edgeres.verification import layers
from edgeres.verification.gates import batch_gate, difference_gates, integer_gates, layer_gates
from edgeres.verification.layers import LayerCheck
from edgeres.verification.parity import Parity, compare
from edgeres.verification.scales import Audit, audit, float_by_choice, name_layers
from edgeres.verification.structure import mismatches

_CHUNK = 500
_TOGETHER = 32  # images of one batch
_SHOWN = 3  # sentences for each kind of fault


@dataclass(frozen=True)
class Reference:
    """What a file must reproduce.

    Attributes:
        model: the folded network.
        scales: as the target's file holds them; None for a float file.
        logits: (N, C) of the network (or of its quantized graph) on `images`.
        float_logits: (N, C) of the network before quantization.
        images: uint8 (N, 3, H, W); labels: (N,).
        metadata: what the file must say of itself, and all that it may.
        npus: what it has to be compiled for, where it is compiled.
    """

    model: Classifier
    scales: ScaleTable | None
    logits: np.ndarray
    float_logits: np.ndarray
    images: torch.Tensor
    labels: torch.Tensor
    metadata: Mapping[str, str] = field(default_factory=dict)
    npus: tuple[str, ...] = ()

    def step(self) -> float | None:
        """The scale of an integer file's answers."""
        if self.scales is None:
            return None
        return self.scales[wiring(self.model.spec)[-1].name].scale[0]


@dataclass(frozen=True)
class Certificate:
    """The verdict on one file; what can't be measured on this system is None.

    Attributes:
        parity: against the network it was written from (its quantized graph for an integer file).
        float_parity: against the network before quantization.
        layers: each layer from the codes it really got; None for float files and runtimes that
            hide their tensors.
        adds: names of the residual adds that were found in their place.
        discordant: (only the float network right, only the file right), for McNemar's test.
        run_by: "its runtime", or what stood in for it here ("" if nothing ran it).
    """

    target: str
    gates: tuple[Gate, ...]
    graph: FileGraph
    audit: Audit | None
    layers: tuple[LayerCheck, ...] | None
    adds: tuple[str, ...]
    parity: Parity | None
    float_parity: Parity | None
    accuracy: Accuracy | None
    discordant: tuple[int, int] | None
    logits: np.ndarray | None
    run_by: str
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
    """Inspect a file, audit its scales and layers, and run it on every sample of the reference.

    Raises:
        BadInput: the file is damaged, its format unknown, or it is for other images or classes.
    """
    target, precision = targets.load(exported.target)
    graph = target.read(path)
    _require_same_task(path, graph, reference)
    same = float(file_sha256(path) == exported.sha256)
    gates = [Gate("file unchanged since export", same, "==", 1)]
    stale = [k for k, v in reference.metadata.items()
             if graph.metadata.get(k) != v and k != VERSION_NOTE]  # fmt: skip
    gates.append(Gate("wrong or missing notes in the file", len(stale), "==", 0))
    notes = [f"the file's {key} is not the network's" for key in stale]
    found, checks = None, None
    adds: tuple[str, ...] = ()
    if reference.scales is not None:
        found = audit(graph, reference.model, reference.scales)
        adds = _adds(graph, reference)
        chosen = float_by_choice(graph, reference.model, reference.scales)
        gates += integer_gates(graph, reference.model, chosen)
        gates.append(Gate("scales that differ from training", len(found.differing), "==", 0))
        notes += found.differing[:_SHOWN]
        unpacked = {op.output for op in graph.four_bits() if op.floating}
        wrong = graph.float_operators({*chosen, *unpacked})
        notes += [f"float operator: {name}" for name in wrong[:_SHOWN]]
        if chosen:
            notes.append(f"float by the recipe: {len(chosen)} operators")
        if unpacked:
            notes.append(f"{target.RUNTIME} computes {len(unpacked)} layers with 4-bit weights in "
                         "float")  # fmt: skip
        with _runnable(path):
            checks = _layers(path, exported, graph, reference, limits.layer_samples)
        gates += layer_gates(checks, limits, notes)
    refused = target.refusals(path) if hasattr(target, "refusals") else None
    if refused is not None:
        gates.append(Gate("refusals by its runtime's own parser", len(refused), "==", 0))
        notes += refused[:_SHOWN]
    source = Source(reference.model, reference.scales, reference.metadata, npus=reference.npus)
    stored = target.structure(path, source, precision)
    session = target.session(path)
    logits, run_by = None, ""
    against, before, accuracy, discordant = None, None, None, None
    if session is None:
        notes.append("its runtime doesn't exist on this system: structure and scales only")
    else:
        run_by = getattr(session, "stand_in", "its runtime")
        with _runnable(path):
            logits = _answers(session, path, exported, reference, tick)
        # Core ML dequantizes its output: its codes are those of the last layer all the same.
        step = reference.step()
        against = compare(reference.logits, logits, step)
        before = compare(reference.float_logits, logits, step)
        accuracy, discordant = _accuracy(reference, logits)
        gates.append(Gate("top-1 agreement", against.agreement, ">=", limits.agreement))
        gates += difference_gates(against, precision, limits)
        if reference.scales and (caution := getattr(session, "caution", "")):
            notes.append(caution)
        if stored.batch is None:
            with _runnable(path):
                batched = _batched(cast(BatchSession, session), exported, reference)
            gates.append(batch_gate(batched, precision, limits))
    strange = mismatches(stored, reference.model, reference.scales, precision)
    gates.append(Gate("parts that are not the network's", len(strange), "==", 0))
    notes += strange[:_SHOWN]
    return Certificate(exported.target, tuple(gates), graph, found, checks, adds, against, before,
                       accuracy, discordant, logits, run_by, tuple(notes))  # fmt: skip


@contextmanager
def _runnable(path: Path) -> Iterator[None]:
    """A file that its runtime can't run as the network, or that answers in another form."""
    try:
        yield
    except EdgeresError:
        raise
    except (ValueError, TypeError, LookupError, RuntimeError) as error:
        raise BadInput(f"{path}: can't be run as the run's network ({error!s:.200})") from error


def _require_same_task(path: Path, graph: FileGraph, reference: Reference) -> None:
    size, classes = reference.images.shape[-1], reference.logits.shape[-1]
    images = (1, size, size, 3) if graph.input.layout == "NHWC" else (1, 3, size, size)
    for what, found, wanted in (
        ("takes", graph.input.shape, images), ("gives", graph.output.shape, (1, classes))
    ):  # fmt: skip
        if tuple(found) != wanted:
            shapes = "x".join(map(str, found)), "x".join(map(str, wanted))
            raise BadInput(f"{path}: {what} {shapes[0]}, the run's network {shapes[1]}; verify it "
                           "--against the run that it belongs to")  # fmt: skip


def _adds(graph: FileGraph, reference: Reference) -> tuple[str, ...]:
    assert reference.scales is not None
    found = name_layers(graph, reference.model, reference.scales).values()
    return tuple(name for name in found if name.endswith(".add"))


def _layers(
    path: Path, exported: ExportedFile, graph: FileGraph, reference: Reference, samples: int
) -> tuple[LayerCheck, ...] | None:
    """Each layer of the file on a few images; None where the runtime hides its tensors."""
    target, _ = targets.load(exported.target)
    tracer = target.tracer(path)
    if tracer is None:
        return None
    assert reference.scales is not None
    x = prepared(reference.images[:samples], reference.model.spec.preprocess).contiguous()
    given = targets.encode(x.numpy(), exported.input)
    if given.dtype == np.float16:  # the first layer, too, is judged by what it was given
        x = torch.from_numpy(given).float()
    traced = tracer.run(given)
    names = name_layers(graph, reference.model, reference.scales)
    codes = {
        names[op.output]: _signed(traced[op.output])
        for op in graph.ops  # a ReLU of its own comes after the layer that it ends
        if op.output in names
        and op.output in traced
        and np.issubdtype(traced[op.output].dtype, np.integer)
    }
    return layers.check(reference.model, reference.scales, x, codes)


def _signed(codes: np.ndarray) -> np.ndarray:
    """uint8 codes as the int8 ones that they stand for, which are 128 less."""
    return (codes ^ 128).view(np.int8) if codes.dtype == np.uint8 else codes


def _accuracy(reference: Reference, logits: np.ndarray) -> tuple[Accuracy, tuple[int, int]]:
    labels = reference.labels.numpy()
    right, before = logits.argmax(1) == labels, reference.float_logits.argmax(1) == labels
    discordant = int((before & ~right).sum()), int((right & ~before).sum())
    return Accuracy(int(right.sum()), len(labels)), discordant


def _answers(
    session: Session,
    path: Path,
    exported: ExportedFile,
    reference: Reference,
    tick: Callable[[int, int, str], None],
) -> np.ndarray:
    """Logits of every sample."""
    parts: list[np.ndarray] = []
    for chunk in reference.images.split(_CHUNK):
        x = prepared(chunk, reference.model.spec.preprocess).contiguous().numpy()
        outputs = session.run(targets.encode(x, exported.input))
        parts.append(targets.decode(outputs, exported.output))
        tick(sum(map(len, parts)), len(reference.images), f"running {path.name}")
    return np.concatenate(parts)


def _batched(session: BatchSession, exported: ExportedFile, reference: Reference) -> Parity:
    """Images answered together against the same ones answered alone."""
    images = reference.images[:_TOGETHER]
    x = targets.encode(prepared(images, reference.model.spec.preprocess).contiguous().numpy(),
                       exported.input)  # fmt: skip
    alone, together = (
        targets.decode(outputs, exported.output)
        for outputs in (np.concatenate([session.run(image[None]) for image in x]),
                        session.together(x))
    )  # fmt: skip
    step = reference.step()
    return compare(alone, together, step)
