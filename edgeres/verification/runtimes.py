"""A file on another runtime: which operators it takes, and how far its answers are.

A file, the network it was written from and a runtime's name flow in; a verdict flows out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeres import runtimes, scratch, targets
from edgeres.runtimes._asking import Answer, ask, kept
from edgeres.runtimes._faults import known
from edgeres.training.inference import prepared
from edgeres.types import Accuracy, ExportedFile, Gate
from edgeres.verification.certificate import Reference
from edgeres.verification.gates import COMPRESSED, FINER
from edgeres.verification.parity import Parity, compare
from edgeres.verification.scales import name_layers

_CUT_IMAGES = 4
_ONE_CODE = 1.0
_FLOAT_SHARE = 0.05  # OpenVINO computes a float32 file in bfloat16 where a CPU can


@dataclass(frozen=True)
class Divergence:
    """Where a runtime departs from the file's own runtime here.

    Attributes:
        layer: the first one whose codes differ by more than the gate's limit (or by more than one
            code, where none does); worst: by how much.
    """

    layer: str
    worst: float


@dataclass(frozen=True)
class Verdict:
    """What a runtime says of one file.

    Attributes:
        answer: without its outputs; parity: against the network's own, None without answers.
        equal_images: how many images have the same output codes, all of them.
        compiled: names of the files that were kept.
        known: where a gate of the answers fails, what the runtime is known to compute wrongly of
            such a file, and the mend.
    """

    runtime: str
    how: str
    answer: Answer
    gates: tuple[Gate, ...]
    parity: Parity | None = None
    equal_images: int | None = None
    accuracy: Accuracy | None = None
    divergence: Divergence | None = None
    compiled: Sequence[str] = ()
    known: str = ""

    @property
    def passed(self) -> bool:
        """Whether every gate is met."""
        return all(gate.passed for gate in self.gates)


def fits(name: str, target: str) -> bool:
    """Whether a runtime takes a target's files."""
    return target in runtimes.load(name).TAKES


def judge(
    name: str,
    path: Path,
    exported: ExportedFile,
    reference: Reference,
    samples: int,
    keep: Path | None,
    tick: Callable[[int, int, str], None],
) -> Verdict:
    """Ask a runtime about an exported file.

    Args:
        samples: how many of the reference's images it answers, at most.
        keep: where what it compiles goes; None if nowhere.

    Raises:
        MissingComponent: the runtime can't be asked here.
    """
    n = min(samples, len(reference.images))
    images = _encoded(reference, exported, n)

    def waiting(done: int) -> None:
        tick(done, n, f"asking {name}")

    with scratch.folder("runtime") as folder:
        (answer,) = ask(name, [(path, images)], folder, waiting)
        compiled = kept(answer, keep)
    verdict = replace(weigh(name, exported, reference, n, answer), compiled=compiled)
    if verdict.passed or verdict.parity is None:
        return verdict
    graph = targets.load(exported.target)[0].read(path)
    divergence = None
    if verdict.equal_images is not None:
        divergence = _divergence(name, path, exported, reference, waiting)
    return replace(verdict, divergence=divergence, known=known(name, exported.target, graph))


def weigh(
    name: str, exported: ExportedFile, reference: Reference, n: int, answer: Answer
) -> Verdict:
    """The gates of what a runtime answered to the first n images of the reference."""
    if not answer.error and answer.outputs is not None:
        answer = replace(answer, error=_unfit(answer.outputs, exported, reference))
    if not answer.error and answer.outputs is None and runtimes.answers(name):
        answer = replace(answer, error="it gives no answers")
    how = runtimes.how(name)
    if answer.error:
        gate = Gate(f"{name}: gives an answer", 0, "==", 1)
        return Verdict(name, how, answer, (gate,))
    gates = [Gate(f"{name}: operators not taken", len(answer.refused), "==", 0)]
    if answer.outputs is None:
        return Verdict(name, how, answer, tuple(gates))
    expected = reference.logits[:n]
    logits = targets.decode(answer.outputs.reshape(n, -1), exported.output)
    step, limits = reference.step(), runtimes.load(name).LIMITS
    parity = compare(expected, logits, step)
    gates.append(Gate(f"{name}: top-1 agreement", parity.agreement, ">=", limits["agreement"]))
    worst, equal = f"{name}: worst difference", None
    _, precision = targets.load(exported.target)
    if precision in COMPRESSED:  # other weights than the network's: only answers count
        pass
    elif step is None:
        share = parity.worst / float(np.ptp(expected) or 1.0)
        gates.append(Gate(worst, share, "<=", _FLOAT_SHARE, "of the logits' range"))
    else:
        most = limits["worst_codes"] * FINER.get(precision, 1)
        gates.append(Gate(worst, parity.worst, "<=", most, "codes"))
        equal = int((np.abs(expected - logits) < step / 2).all(1).sum())
    right = logits.argmax(1) == reference.labels[:n].numpy()
    accuracy = Accuracy(int(right.sum()), n)
    return Verdict(name, how, answer, tuple(gates), parity, equal, accuracy)


def _unfit(outputs: np.ndarray, exported: ExportedFile, reference: Reference) -> str:
    """Why answers can't be this file's; empty if they can."""
    values = outputs[0].size
    if values != reference.logits.shape[1]:
        return f"it gives {values} values an image instead of {reference.logits.shape[1]}"
    if exported.output.quantization and (outputs != np.rint(outputs)).any():
        return "it gives real numbers where the file has codes"
    return ""


def _encoded(reference: Reference, exported: ExportedFile, n: int) -> np.ndarray:
    x = prepared(reference.images[:n], reference.model.spec.preprocess).contiguous().numpy()
    return targets.encode(x, exported.input)


def _divergence(
    name: str, path: Path, exported: ExportedFile, reference: Reference,
    waiting: Callable[[int], None],
) -> Divergence | None:  # fmt: skip
    """The first layer whose codes differ, on a few images; None if it can't be found."""
    target, _ = targets.load(exported.target)
    cut = getattr(target, "cut", None)
    if cut is None:
        return None
    assert reference.scales is not None
    graph = target.read(path)
    layers = name_layers(graph, reference.model, reference.scales)
    images = _encoded(reference, exported, min(_CUT_IMAGES, len(reference.images)))
    with scratch.folder("cut") as folder, scratch.folder("runtime") as work:
        files = []
        for number, op in enumerate(graph.ops):
            short = folder / f"{number}{path.suffix}"
            if op.output in layers and cut(path, op.output, short):
                files.append((layers[op.output], short))
        answers = ask(name, [(file, images) for _, file in files], work, waiting)
        found = []
        for (layer, file), answer in zip(files, answers, strict=True):
            session = target.session(file)
            if session is not None and answer.outputs is not None:
                own = session.run(images).astype(np.int64)
                other = answer.outputs.astype(np.int64)
                if own.size == other.size:
                    worst = float(np.abs(own.ravel() - other.ravel()).max())
                    found.append(Divergence(layer, worst))
    limit = runtimes.load(name).LIMITS["worst_codes"]
    for most in (limit, _ONE_CODE):
        if first := next((d for d in found if d.worst > most), None):
            return first
    return None
