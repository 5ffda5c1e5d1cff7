"""Would verification notice? Faults are planted in copies of exported files; each must be caught.

Most faults are planted without knowing the format: what the network's weights, scales and notes
look like as bytes is known, so those bytes are found in the file and exchanged for others.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgeres import scratch, targets
from edgeres.compression.graph import wiring
from edgeres.disk import file_sha256, folder_size
from edgeres.errors import EdgeresError, MissingComponent
from edgeres.recipe import VerifySection
from edgeres.targets import _faults
from edgeres.targets._compiled import Form
from edgeres.targets._four_bits import packed
from edgeres.training.inference import prepared
from edgeres.types import ExportedFile, QuantParams
from edgeres.verification.certificate import Reference, certify
from edgeres.verification.known import operations
from edgeres.verification.scales import codes, name_layers, sources


@dataclass(frozen=True)
class Trial:
    """One fault in one file.

    Attributes:
        planted: False where the file has nothing to plant it in (no scales in a float file).
        caught: verification refused the copy.
        gate: the first one that the copy didn't meet and the file does; "error" if the copy can't
            even be read.
        by: the same as a sentence.
    """

    target: str
    fault: str
    planted: bool
    caught: bool
    gate: str
    by: str


Plant = Callable[[Path, Reference], bool]


def try_all(
    path: Path,
    exported: ExportedFile,
    reference: Reference,
    limits: VerifySection,
    tick: Callable[[int, int, str], None],
) -> Iterator[Trial]:
    """Plant each fault in a copy of a file and verify the copy."""
    already = set(_failed(path, exported, reference, limits))
    faults = FAULTS | _of_compiled(path, exported.target)
    for number, (fault, plant) in enumerate(faults.items()):
        tick(number, len(faults), f"{exported.target}: {fault}")
        with scratch.folder("selftest") as folder:
            copy = Path(folder) / path.name
            shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy)
            if not plant(copy, reference):
                yield Trial(exported.target, fault, False, False, "", "")
                continue
            # A changed checksum alone would catch everything: it is made to fit.
            forged = dataclasses.replace(exported, sha256=file_sha256(copy),
                                         size_bytes=folder_size(copy))  # fmt: skip
            failed = _failed(copy, forged, reference, limits)
            new = [(gate, said) for gate, said in failed.items() if gate not in already]
            yield Trial(exported.target, fault, True, bool(new), *(new[0] if new else ("", "")))


def _failed(
    path: Path, exported: ExportedFile, reference: Reference, limits: VerifySection
) -> dict[str, str]:
    """Gates that a file doesn't meet, each with its sentence; or the error that it raises."""
    try:
        found = certify(path, exported, reference, limits, lambda *_: None)
    except MissingComponent:
        raise
    except EdgeresError as error:
        return {"error": str(error).replace(str(path), path.name)}
    return {gate.name: gate.sentence() for gate in found.gates if not gate.passed}


def _lost_identity(path: Path, reference: Reference) -> bool:
    _, target = targets.of_file(path)
    graph = target.read(path)
    if reference.scales is None:  # either side will do: a sum lost one of its two parts
        return _faults.cut_identity(path, 0, 1)
    names = name_layers(graph, reference.model, reference.scales)
    for number, op in enumerate(op for op in graph.ops if op.role == "add"):
        block = names.get(op.output, "").removesuffix(".add")
        for operand, layer in enumerate(sources(op, graph, names).values()):
            if block and not layer.startswith(f"{block}.conv"):
                return _faults.cut_identity(path, number, operand)
    return False


def _scale_changed(path: Path, reference: Reference) -> bool:
    return _scales(path, reference, lambda s: np.concatenate([s[:1] * np.float32(1.05), s[1:]]))


def _not_folded(path: Path, reference: Reference) -> bool:
    """Batch norm's factor is in the scale of each channel, and in a float file in its weights."""

    def unfold(values: np.ndarray) -> np.ndarray:
        factors = np.random.default_rng(0).uniform(0.5, 2, len(values)).astype(np.float32)
        return values * factors.reshape(-1, *[1] * (values.ndim - 1))

    if reference.scales is not None:
        return _scales(path, reference, unfold)
    return _weights(path, reference, lambda w: unfold(w.astype(np.float32)).astype(w.dtype))


def _activation_scale(path: Path, reference: Reference) -> bool:
    if reference.scales is None:
        return False
    scale = np.float32(reference.scales[_layer(reference)].scale[0])
    return _exchange(path, scale.tobytes(), np.float32(scale * np.float32(1.05)).tobytes())


def _swapped(path: Path, reference: Reference) -> bool:
    def swap(weight: np.ndarray) -> np.ndarray:
        first, second = next((a, b) for a, b in itertools.combinations(range(len(weight)), 2)
                             if (weight[a] != weight[b]).any())  # fmt: skip
        order = list(range(len(weight)))
        order[first], order[second] = second, first
        return weight[order]

    return _weights(path, reference, swap)


def _transposed(path: Path, reference: Reference) -> bool:
    return _weights(path, reference, lambda weight: weight.swapaxes(2, 3))


def _normalization(path: Path, reference: Reference) -> bool:
    said = reference.metadata.get("edgeres.preprocess", "")
    wrong = re.sub(r"[1-8](?=\d*\])", lambda m: str(int(m[0]) + 1), said, count=1)
    return wrong != said and _exchange_text(path, said, wrong)


def _stale_labels(path: Path, reference: Reference) -> bool:
    said = reference.metadata.get("edgeres.labels", "")
    labels = said.split("\n")
    return len(set(labels)) > 1 and _exchange_text(path, said, "\n".join(labels[1:] + labels[:1]))


def _hidden_bias(path: Path, reference: Reference) -> bool:
    """A bias far off, in a channel whose ReLU lets nothing through, or as little as there is."""
    name, channel = _silent_channel(reference)
    bias = reference.model.state_dict()[f"{name}.bias"].numpy()
    stored: list[tuple[np.ndarray, type[np.generic], float]] = [
        (bias, np.float32, 1e4), (bias, np.float16, 1e4)
    ]  # fmt: skip
    if reference.scales is not None:
        read = next(w.sources[0] for w in wiring(reference.model.spec) if w.name == name)
        steps = np.asarray(reference.scales[f"{name}.weight"].scale)
        whole = np.rint(bias / (steps * reference.scales[read].scale[0]))
        stored += [(whole, np.int32, 2.0**20), (whole, np.int64, 2.0**20)]
    for values, kind, less in stored:
        wrong = values.copy()
        wrong[channel] -= less
        if _exchange(path, values.astype(kind).tobytes(), wrong.astype(kind).tobytes()):
            return True
    return False


def _silent_channel(reference: Reference) -> tuple[str, int]:
    """The layer before a ReLU, and its channel, in which no image at hand gives much."""
    model = reference.model
    found: list[tuple[float, str, int]] = []
    x = prepared(reference.images, model.spec.preprocess)

    def look(name: str) -> Callable[..., None]:
        def hook(_module: object, _args: object, output: torch.Tensor) -> None:
            peak, channel = output.amax((0, 2, 3)).min(0)
            found.append((peak.item(), name, int(channel)))

        return hook

    relus = {k.name for k in operations(model.spec) if k.relu and k.op == "conv"}
    hooks = [module.register_forward_hook(look(name)) for name, module in model.named_modules()
             if name in relus]  # fmt: skip
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return min(found)[1:]


def _structural(fault: str) -> Plant:
    return lambda path, _reference: _faults.plant(fault, path)


def _truncated(path: Path, _reference: Reference) -> bool:
    largest = max(_files(path), key=lambda f: f.stat().st_size)
    data = largest.read_bytes()
    largest.write_bytes(data[: len(data) * 2 // 3])
    return True


FAULTS: dict[str, Plant] = {
    "a residual add's identity replaced by zeros": _lost_identity,
    "a weight scale changed by 5 %": _scale_changed,
    "an activation scale changed by 5 %": _activation_scale,
    "two channels swapped": _swapped,
    "batch norm not folded": _not_folded,
    "a weight tensor transposed": _transposed,
    "wrong normalization": _normalization,
    "stale labels": _stale_labels,
    "a bias in a channel that stays silent": _hidden_bias,
    **{fault: _structural(fault) for fault in (*_faults.SILENT, _faults.SWAPPED)},
    "a truncated file": _truncated,
}


def _of_compiled(path: Path, target: str) -> dict[str, Plant]:
    """Faults in what a compiler made, of which nobody but the compiler can tell what it should be.

    The file that was compiled, beside it, stays right.
    """
    form = targets.compiled(target)
    if form is None:
        return {}
    inside = [file.relative_to(path) for file in form.made(path)]
    flipped = {f"a bit turned in {name}": _turned(name) for name in inside}
    return {**flipped, "compiled files of another network": functools.partial(_another, form)}


def _turned(inside: Path) -> Plant:
    """In the middle of the 64 bytes with the most different values, which are weights or code."""

    def plant(path: Path, _reference: Reference) -> bool:
        data = bytearray((path / inside).read_bytes())
        at = max(range(0, len(data), 64), key=lambda i: len(set(data[i : i + 64])))
        data[min(at + 32, len(data) - 1)] ^= 1
        (path / inside).write_bytes(data)
        return True

    return plant


def _another(form: Form, path: Path, reference: Reference) -> bool:
    """Compile the network with two channels swapped, and put the right file beside it again."""
    file = form.inside(path)
    right = file.read_bytes()
    if not _swapped(file, reference):
        return False
    form.anew(path)
    file.write_bytes(right)
    return True


def _layer(reference: Reference) -> str:
    """A 3x3 convolution in the middle of the network."""
    kernels = [name.removesuffix(".weight") for name, w in reference.model.state_dict().items()
               if w.ndim == 4 and w.shape[-1] == 3 and name.startswith("layer")]  # fmt: skip
    return kernels[len(kernels) // 2]


def _scales(path: Path, reference: Reference, change: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Change the weight scales of one layer, stored as float32 or float16."""
    if reference.scales is None:
        return False
    trained: QuantParams = reference.scales[f"{_layer(reference)}.weight"]
    scale = np.asarray(trained.scale, np.float32)
    return any(_exchange(path, scale.astype(kind).tobytes(), change(scale).astype(kind).tobytes())
               for kind in (np.float32, np.float16))  # fmt: skip


def _weights(path: Path, reference: Reference, change: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Change the weights of one layer, in whichever type and layout the file has them."""
    name = f"{_layer(reference)}.weight"
    forms: list[Callable[[np.ndarray], bytes]] = [np.ndarray.tobytes]
    if reference.scales is not None:
        kinds = [codes(reference.model, reference.scales, name)]
        forms += [packed] if reference.scales[name].dtype == "int4" else []
    else:
        weight = reference.model.state_dict()[name].numpy()
        kinds = [weight, weight.astype(np.float16)]
    for weight in kinds:
        for axes in ((0, 1, 2, 3), (0, 2, 3, 1), (2, 3, 1, 0)):
            stored, wrong = weight.transpose(axes), change(weight).transpose(axes)
            if any(_exchange(path, form(stored), form(wrong)) for form in forms):
                return True
    return False


def _exchange_text(path: Path, old: str, new: str) -> bool:
    return _exchange(path, old.encode(), new.encode())


def _exchange(path: Path, old: bytes, new: bytes) -> bool:
    """Replace bytes wherever they occur in a file or in the files of a folder."""
    assert len(old) == len(new)
    found = False
    for file in _files(path):
        data = file.read_bytes()
        if old != new and old in data:
            file.write_bytes(data.replace(old, new))
            found = True
    return found


def _files(path: Path) -> list[Path]:
    return [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
