"""From ONNX: a file of anybody's in, a network and its tensors out; nothing runs it.

Of a file of integers, what its codes stand for comes out, too (`_integers`). What isn't in the
table below is refused by name, with the node it stands in.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeres import preprocessing
from edgeres.errors import BadInput
from edgeres.network import _integers, _onnx, onnx_file, onnx_session
from edgeres.network._onnx import BATCH, Call, Program
from edgeres.network._walk import (
    Flat,
    Imported,
    Integers,
    Normalization,
    Walk,
    as_shape,
    conv_attributes,
    maker,
    require_image,
    require_same,
    trial_codes,
    trial_images,
    turned,
)
from edgeres.network.graph import INPUT, Network, Node, Value
from edgeres.network.ops import LARGEST
from edgeres.types import QuantParams

Ask = Callable[[np.ndarray], np.ndarray]
"""What answers as a file does: images (N, 3, H, H) as it takes them -> its answers."""

_MOST_PIXELS = 4096
_TRIALS = 16  # images that a file of integers is asked about
_FORGETTABLE = 64 << 20  # bytes that constants may make beside those that are stored


def from_onnx(
    path: Path, size_px: int, given: Normalization | None = None, *, compare: bool = False
) -> Imported:
    """Read an ONNX file.

    Args:
        size_px: of the images, where the file takes any.
        given: what it is fed with, in the order of its channels; None: what it says itself. What
            it does to its images before anything else comes on top.
        compare: ask onnxruntime, too.

    Raises:
        BadInput: it isn't a network of one image and one vector of logits, or an operation isn't
            known; it is named, with the node it stands in. Or onnxruntime's answers to a few images
            aren't those of what was read.
    """
    program = _onnx.read(path)
    ask = _runtime(path) if compare else None
    if not _integers.is_integer({call.kind for call in program.calls}):
        return of_program(path, program, size_px, given, ask)
    program, stored = _integers.in_floats(program, str(path))
    return of_program(path, program, size_px, given, ask, stored)


def of_program(
    path: Path, program: Program, size_px: int, given: Normalization | None = None,
    ask: Ask | None = None, stored: _integers.Stored | None = None,
) -> Imported:  # fmt: skip
    """The network of a program, wherever it comes from.

    Args:
        size_px, given: as `from_onnx` takes them.
        ask: what answers as the file itself does; None: nothing is asked.
        stored: what its codes stand for, if it has some.

    Raises:
        BadInput: as `from_onnx`.
    """
    if stored is None and program.image_type != "float32":
        raise BadInput(f"{path}: takes {program.image_type}; a network here takes float32 images, "
                       "or codes: if it prepares pixels itself, export it without that, and say "
                       "it with --preprocess")  # fmt: skip
    where, shape = str(path), tuple(program.shape)
    nhwc = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
    if nhwc:
        shape = (shape[0], shape[3], shape[1], shape[2])
    if len(shape) == 4:
        known = next((n for n in shape[2:] if n), min(size_px, _MOST_PIXELS))
        shape = (*shape[:2], *(n or known for n in shape[2:]))
    require_image(where, (0, *shape[1:]))
    if shape[2] > _MOST_PIXELS:
        raise BadInput(f"{where}: takes images of {shape[2]:,} px; {_MOST_PIXELS:,} are the most")
    walk = _Import(where, program=program, shapes={INPUT: shape[1:]}, batch=shape[0],
                   codes=stored is not None)  # fmt: skip
    walk.run(nhwc)
    output = walk.values.get(program.answer)
    answer = walk.shapes.get(output, ()) if output else ()
    own = walk.normalizes()
    said = given or _said(program.metadata, where)
    if said is None and program.image_type != "float32":
        assert stored is not None
        said = _of_codes(walk, stored.scales[program.image])
    elif said is None and own is not None:
        said = _guessed(own)
        walk.notes.append(
            f"normalizes its images itself, as for pixels from 0 to {1 if said[1][0] == 1 else 255}"
            ", which are assumed; what it is given else, --preprocess or --mean and --std say"
        )
    elif own is not None:
        walk.notes.append(f"normalizes its images itself: {preprocessing.in_words(*own)} of what it"
                          " is given come on top of what is said")  # fmt: skip
    total = None if said is None else _composed(said, own or ((0.0,), (1.0,)))
    if not any(node.op == "batch_norm" for node in walk.nodes.values()):
        walk.notes.append("holds no batch norm, as exporters fold it into convolutions: where it "
                          "is trained on, it needs a lower learning rate (0.002 in place of 0.01: "
                          "prune.train.learning_rate, teacher.train.learning_rate)")  # fmt: skip
    read = walk.finished(output, (0, *answer), shape[2], path.stem,
                         total or ((0.5,), (0.5,)), codes=stored is not None)  # fmt: skip
    integers = None if stored is None else walk.integers(read.module.spec, stored)
    if ask is not None:
        try:
            integers = _compared(walk, read, integers, ask, stored is not None and stored.logits)
        except _Silent as error:
            note = f"its answers weren't compared with its runtime's, which can't run it: {error}"
            read = replace(read, notes=(*read.notes, note))
    return replace(read, normalization=total, integers=integers)


class _Silent(Exception):
    """A runtime doesn't answer."""


def _runtime(path: Path) -> Ask:
    def ask(images: np.ndarray) -> np.ndarray:
        content = onnx_file.contents(path, onnx_file.load(path))
        session = onnx_session.computing(path, content)
        (image,) = session.get_inputs()
        return np.asarray(session.run(None, {image.name: images})[0])

    return ask


def _compared(
    walk: _Import, read: Imported, integers: Integers | None, ask: Ask, logits: bool
) -> Integers | None:
    """Ask the file's own runtime and the network the same.

    Of a file of integers only the runtime is asked: its answers are for who knows the graph of
    integers.

    Raises:
        BadInput: the network is another one.
        _Silent: the runtime doesn't answer.
    """
    size_px = read.module.spec.preprocess.size_px
    if integers is not None:
        said = not walk.last or logits
        asked = _asked(walk, read.module.spec, integers, ask) if said else None
        return replace(integers, asked=asked)
    x = trial_images(walk.batch or 2, size_px)
    theirs = torch.from_numpy(_answers(walk, ask, x.numpy()))
    factor, shift = (torch.from_numpy(v).float().view(3, 1, 1) for v in walk.affected())
    with torch.no_grad():
        ours = read.module(x * factor + shift)
    ends = {call.outputs[0]: call.kind for call in walk.program.calls if call.outputs}
    for name in walk.last:
        ours = ours.softmax(1) if ends[name] == "Softmax" else ours.log_softmax(1)
    require_same(walk.where, ours, theirs.reshape(ours.shape) if theirs.numel() == ours.numel()
                 else theirs)  # fmt: skip
    return None


def _asked(
    walk: _Import, network: Network, integers: Integers, ask: Ask
) -> tuple[np.ndarray, np.ndarray] | None:
    """Codes of a few images and those of the file's answers; None: they say nothing of the
    network's, as there is something before the first codes."""
    image, answer = (integers.scales.get(key) for key in (INPUT, maker(network, network.output)))
    if image is None or answer is None or walk.normalizes() is not None:
        return None
    step = walk.batch or _TRIALS
    codes = trial_codes(-(-_TRIALS // step) * step, network.preprocess.size_px)
    fed: np.ndarray = (codes.astype(np.float32) - image.zero_point[0]) * np.float32(image.scale[0])
    if walk.program.image_type != "float32":
        fed = (codes.astype(np.int16) + (128 if walk.program.image_type == "uint8" else 0)).astype(
            walk.program.image_type
        )
    given = _answers(walk, ask, fed).reshape(len(codes), -1)
    if given.dtype.kind == "f":
        found = np.rint(given / np.float32(answer.scale[0])) + answer.zero_point[0]
    else:
        found = given.astype(np.int16) - (128 if given.dtype == np.uint8 else 0)
    return codes, found.clip(-128, 127).astype(np.int8)


def _answers(walk: _Import, ask: Ask, images: np.ndarray) -> np.ndarray:
    """Of a runtime, to images (N, 3, H, H) of the file's own type."""
    fed = images.transpose(0, 2, 3, 1) if walk.program.image in walk.nhwc else images
    step = walk.batch or len(fed)
    try:
        return np.concatenate([ask(np.ascontiguousarray(fed[i : i + step]))
                               for i in range(0, len(fed), step)])  # fmt: skip
    except Exception as error:  # each runtime has exceptions of its own
        said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise _Silent(said) from error


def _of_codes(walk: _Import, params: QuantParams) -> Normalization:
    """mean and std with which the codes of a pixel is what it is, or 128 less."""
    walk.notes.append("takes codes, which are assumed to be pixels (0 to 255, or 128 less): what "
                      "else they are, --preprocess or --mean and --std say")  # fmt: skip
    return ((params.zero_point[0] + 128) / 255,), (1 / (255 * params.scale[0]),)


def _said(metadata: Any, where: str) -> Normalization | None:
    """What a file that edgeres wrote says of its images."""
    text = metadata.get("edgeres.preprocess")
    if text is None:
        return None
    try:
        own = json.loads(text)
        mean, std = (tuple(float(v) for v in own[key]) for key in ("mean", "std"))
        if {len(mean), len(std)} <= {1, 3} and all(map(math.isfinite, mean)) and min(std) > 0:
            return mean, std
    except (LookupError, TypeError, ValueError, RecursionError):
        pass
    raise BadInput(f"{where}: its edgeres.preprocess isn't a mean and a std")


def _guessed(own: Normalization) -> Normalization:
    """Pixels from 0 to 1 or to 255: what a mean and a std can belong to."""
    way = preprocessing.WAYS["unit" if max(*own[0], *own[1]) <= 1 else "pixels"]
    return way.mean, way.std


def _composed(first: Normalization, second: Normalization) -> Normalization:
    """One normalization for two, one behind the other."""
    (m, s), (mean, std) = [[np.asarray(v, float) for v in pair] for pair in (first, second)]
    total = m + s * mean, s * std
    whole: list[tuple[float, ...]] = []
    for values in total:
        numbers = [float(v) for v in np.atleast_1d(values)]
        whole.append(tuple(numbers[:1] if len(set(numbers)) == 1 else numbers))
    return whole[0], whole[1]


@dataclass(frozen=True)
class _Table:
    """A map's channels as a table, on the way of being shuffled.

    Attributes:
        sides: channels, height and width of the map.
    """

    source: str
    rows: tuple[int, int]
    turned: bool
    sides: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """As the file has it now, without the batch."""
        return (*(self.rows[::-1] if self.turned else self.rows), *self.sides[1:])


@dataclass
class _Import(Walk):
    """One walk over a file's nodes.

    Attributes:
        batch: how many images the file takes at once; 0: any number.
        codes: whether it is a file of integers.
        shapes: of the network's values, without the batch.
        values: of the file -> of the network.
        constants: of the file, and what follows from them.
        origin: a constant -> the stored tensor that it is.
        nhwc: values of the file that have their channels last.
        tables: values of the file that are a map on the way of being shuffled.
        flat: values of the file that are a map as a vector, which few operations may read.
        columns: those that are a vector, as (N, C, 1).
        spread: those that are a pixel as large as a map, which a product makes of it itself; the
            map's height and width.
        padded: values of the file -> what zeros are to be around them: top, left, bottom, right.
        affine: values of the file that are the image, times something, plus something.
        last: values of the file that are its answer only.
        kept: tensors of the network -> the stored ones that they are.
    """

    program: Program = field(kw_only=True)
    batch: int = 0
    codes: bool = False
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    tables: dict[str, _Table] = field(default_factory=dict)
    flat: dict[str, Flat] = field(default_factory=dict)
    columns: set[str] = field(default_factory=set)
    spread: dict[str, tuple[int, ...]] = field(default_factory=dict)
    nhwc: set[str] = field(default_factory=set)
    padded: dict[str, tuple[int, ...]] = field(default_factory=dict)
    affine: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    last: set[str] = field(default_factory=set)
    kept: dict[str, str] = field(default_factory=dict)
    _readers: Counter[str] = field(default_factory=Counter)
    _uses: dict[str, int] = field(default_factory=dict)  # the same, under all of a value's names
    _fed: tuple[np.ndarray, np.ndarray] | None = None
    _spare: int = _FORGETTABLE

    def run(self, nhwc: bool) -> None:
        self.values[self.program.image] = INPUT
        self.affine[self.program.image] = np.ones(3), np.zeros(3)
        if nhwc:
            self.nhwc.add(self.program.image)
        self.constants = dict(self.program.constants)
        self._spare += sum(value.nbytes for value in self.constants.values())
        self.own([_onnx.dotted(name, keep_last=True) for name in self.constants])
        self._readers.update(name for call in self.program.calls for name in call.inputs)
        self._uses = _uses(self.program)
        self._readers[self.program.answer] += 1
        for call in self.program.calls:
            try:
                if not self._folded(call):
                    handler = _CALLS.get(call.kind)
                    if handler is None:
                        raise self.refused(call, f"{call.kind} isn't known")
                    handler(self, call)
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
                    MemoryError) as error:  # fmt: skip
                raise self.refused(call, f"{call.kind} with these arguments isn't known") from error

    def _folded(self, call: Call) -> bool:
        """Whether a node was computed, as all that it reads is constant."""
        if call.kind == "Shape" and call.input(0) in self.values:
            whole = (BATCH, *self.stored_shape(call.inputs[0]))
            start, end = call.attributes.get("start", 0), call.attributes.get("end")
            found = np.asarray(whole[start:end], np.int64)
        elif all(not name or name in self.constants for name in call.inputs):
            given = [self.constants.get(name) for name in call.inputs]
            made = _onnx.fold(call, given)
            if made is None:
                return False
            found = made
            self._spare -= found.nbytes if found.base is None else 0
            if self._spare < 0:
                raise self.refused(call, f"{call.kind} of constants becomes too large, which")
            if call.inputs:
                self.origin[call.outputs[0]] = self.origin.get(call.inputs[0], call.inputs[0])
        else:
            return False
        self.constants[call.outputs[0]] = found
        return True

    def refused(self, call: Call, why: str) -> BadInput:
        return BadInput(f"{self.where}: the operation {why} in '{call.label}'; docs/models.md "
                        "lists those that are")  # fmt: skip

    def value(self, call: Call, position: int = 0, *, last: bool = False) -> str:
        """The network's name of what a node reads.

        Args:
            last: it may have its channels last.
        """
        name = call.input(position)
        if name not in self.values:
            what = "a constant" if name in self.constants else "what nothing before it makes"
            raise self.refused(call, f"{call.kind} of {what} isn't known")
        for kind, names in (("a softmax", self.last), ("padding", self.padded),
                            ("a map that was flattened", self.flat),
                            ("a vector in another shape", self.columns),
                            ("a pixel as large as a map", self.spread)):  # fmt: skip
            if name in names and not (names is self.spread and self.multiplies(call, name)):
                raise self.refused(call, f"{call.kind} behind {kind} isn't known")
        if name in self.nhwc and not last:
            raise self.refused(call, f"{call.kind} of channels that come last isn't known")
        if name in self.affine:
            fed = self.affine[name]
            if self._fed is not None and not np.array_equal(self._fed, fed):
                raise self.refused(call, f"{call.kind} of an image that is prepared in another way "
                                         "than elsewhere isn't known")  # fmt: skip
            self._fed = fed
        return self.values[name]

    def multiplies(self, call: Call, name: str) -> bool:
        """Whether a node multiplies a pixel as large as a map with a map of that size."""
        others = [other for other in call.inputs if other != name]
        return call.kind == "Mul" and len(others) == 1 and (
            others[0] in self.values and others[0] not in self.spread
            and self.shapes[self.values[others[0]]][1:] == self.spread[name]
        )  # fmt: skip

    def stored_shape(self, name: str) -> tuple[int, ...]:
        """Of a value of the file, without the batch."""
        shape = self.shapes[self.values[name]]
        if name in self.columns:
            return (*shape, 1)
        return (*shape[1:], shape[0]) if name in self.nhwc else shape

    def constant(self, call: Call, position: int) -> np.ndarray:
        """A constant that a node reads."""
        found = self.constants.get(call.input(position))
        if found is None:
            raise self.refused(call, f"{call.kind} whose {_ordinal(position)} input isn't constant "
                                     "isn't known")  # fmt: skip
        return found

    def put(self, op: str, inputs: list[str], name: str, **attributes: Value) -> str:
        super().put(op, inputs, name, **attributes)
        self.shapes[name] = _made(self.nodes[name], [self.shapes[i] for i in inputs])
        return name

    def give(self, call: Call, name: str, *, like: str = "") -> None:
        """Say what a node makes.

        Args:
            name: of the network.
            like: a value of the file, whose channels are where the result's are.
        """
        self.values[call.outputs[0]] = name
        if like in self.nhwc:
            self.nhwc.add(call.outputs[0])

    def named(self, call: Call, op: str) -> str:
        """A name for what a node does."""
        if call.scope and not call.whole:
            return self.free(f"{call.scope}.{op}")
        return self.base(call.scope, op)

    def plain(self, call: Call, op: str, **attributes: Value) -> None:
        """An operation of one map without tensors; its channels are second."""
        self.give(call, self.put(op, [self.value(call)], self.named(call, op), **attributes))

    def pointwise(self, call: Call, op: str, **attributes: Value) -> None:
        """The same, of each number by itself: the channels may come last."""
        cuts, flat = op in ("relu", "clamp"), self.flat.get(call.inputs[0])
        if flat is not None and flat.scale is None and cuts:
            ended = self.cut(op, flat.source, self.named(call, op), **attributes)
            self.give(call, ended)
            self.flat[call.outputs[0]] = replace(flat, source=ended)
            return
        source, base = self.value(call, last=True), self.named(call, op)
        name = (self.cut(op, source, base, **attributes) if cuts else
                self.put(op, [source], base, **attributes))  # fmt: skip
        self.give(call, name, like=call.inputs[0])

    def learned(
        self, call: Call, op: str, tensors: dict[str, np.ndarray], **attributes: Value
    ) -> None:
        """An operation with tensors, whose weight is the node's second input."""
        flat = self.flat.get(call.inputs[0])
        source = flat.source if flat else self.value(call)
        vector = len(self.shapes[source]) == 1
        stored, bias = (self.origin.get(name, name) for name in (call.inputs[1], call.input(2)))
        if not stored.endswith(".weight") and bias.endswith(".bias"):
            stored = f"{bias.removesuffix('.bias')}.weight"  # the other lost its name
        kept = {key: torch.from_numpy(np.array(v, np.float32)) for key, v in tensors.items()}
        weight = _onnx.dotted(stored, keep_last=True)
        owner, _, leaf = weight.rpartition(".")
        if not owner or leaf != "weight":
            weight = _onnx.dotted(stored).replace(".", "_")  # told from others, no name
        if flat and op == "linear":
            given = self.whole_map(source, flat.read_by(kept), weight, self.named(call, op))
            name = self._wholes[given]
        elif op == "batch_norm":
            base = self.named(call, op)
            given = name = self.norm(source, kept, weight, base, vector, **attributes)
        else:
            given = name = self.layer(op, source, kept, weight, self.named(call, op), **attributes)
        self.give(call, given)
        for key, position in (("weight", 1), ("bias", 2)):
            if call.input(position):
                of = call.inputs[position]
                self.kept[f"{name}.{key}"] = self.origin.get(of, of)

    def stretched(self, call: Call, op: str, position: int) -> bool:
        """Whether a node multiplies each channel of a map or vector by a constant, or adds one.

        Of a map that was flattened, each number.
        """
        name, constant = call.input(position), self.constant(call, 1 - position)
        turned_around = position == 1 and op in ("sub", "div")
        if self.codes or name not in self.values or constant.dtype.kind != "f" or turned_around:
            return False
        flat = self.flat.get(name)
        count = math.prod(flat.sides) if flat else self.shapes[self.values[name]][0]
        rank = 2 if flat else 1 + len(self.shapes[self.values[name]])
        found = _per_channel(constant, rank, name in self.nhwc, count)
        if found is None:
            return False
        ones, nothing = np.ones(count), np.zeros(count)
        with np.errstate(all="ignore"):
            scale, shift = {"mul": (found, nothing), "div": (1 / found, nothing),
                            "add": (ones, found), "sub": (ones, -found)}[op]  # fmt: skip
        if flat is not None:
            self.normed(call, flat, scale, shift)
            return True
        source = self.value(call, position, last=True)
        made = self.stretch(source, scale, shift, self.named(call, op),
                            vector=len(self.shapes[source]) == 1)  # fmt: skip
        self.give(call, made, like=name)
        return True

    def normed(self, call: Call, flat: Flat, scale: np.ndarray, shift: np.ndarray) -> None:
        """A flattened map, each number of it multiplied and added to."""
        if scale.shape != shift.shape or scale.shape != (math.prod(flat.sides),):
            raise ValueError("not a number for each of the map's")
        by, more = (torch.from_numpy(np.asarray(v, np.float32)) for v in (scale, shift))
        self.give(call, flat.source)
        self.flat[call.outputs[0]] = flat.scaled(by, more)

    def integers(self, network: Network, stored: _integers.Stored) -> Integers:
        """What the codes of a file of integers are in the network that was made of it."""
        strange, known = list(stored.strange), {INPUT, *network.by_name}
        strange += [f"the batch norm '{node.name}' isn't folded into a convolution"
                    for node in network.nodes if node.op == "batch_norm"]  # fmt: skip
        scales: dict[str, QuantParams] = {}
        for value, name in self.values.items():
            key = maker(network, self._gone.get(name, name))
            params = stored.scales.get(value) if key in known else None
            if params is not None and scales.setdefault(key, params) != params:
                strange.append(f"the codes of '{key}' are rounded to other codes behind it, "
                               f"in '{value[:80]}'")  # fmt: skip
        kept = {tensor: name for tensor, name in self.kept.items()
                if tensor.rpartition(".")[0] in known}  # fmt: skip
        weights = {t: stored.scales[n] for t, n in kept.items() if n in stored.scales}
        biases = {t: stored.biases[n] for t, n in kept.items() if n in stored.biases}
        return Integers(scales | weights, biases, tuple(dict.fromkeys(strange)), None)

    def biased(self, call: Call, position: int) -> bool:
        """Whether adding a constant could become the bias of the layer before it."""
        name = self.values.get(call.input(position), "")
        layer = self._wholes.get(name, name)
        node = self.nodes.get(layer)
        if node is None or node.op not in ("conv2d", "linear") or not node.values.get(
            "trained", True
        ):  # fmt: skip
            return False
        read = call.input(position)
        if self._uses[read] != 1 or read in {*self.padded, *self.flat, *self.columns, *self.spread}:
            return False
        bias = _per_channel(self.constant(call, 1 - position), len(self.shapes[name]) + 1,
                            call.input(position) in self.nhwc, node.number("out"))  # fmt: skip
        if bias is None:
            return False
        before = self.tensors.get(f"{layer}.bias", torch.zeros(node.number("out")))
        self.tensors[f"{layer}.bias"] = before + torch.from_numpy(np.array(bias, np.float32))
        self.nodes[layer] = node.changed(bias=True)
        self.give(call, name, like=call.input(position))
        return True

    def scaled(self, call: Call) -> bool:
        """Whether a node is a step of an image's normalization."""
        position = 0 if call.input(0) in self.affine else 1
        name = call.input(position)
        if name not in self.affine or call.input(1 - position) not in self.constants:
            return False
        other = _per_channel(self.constant(call, 1 - position), 4, name in self.nhwc, 3)
        if other is None or (call.kind == "Div" and position == 1) or name in self.padded:
            raise self.refused(call, f"{call.kind} of the image, as it comes, and what isn't one "
                                     "number per channel isn't known")  # fmt: skip
        factor, shift = self.affine[name]
        if call.kind in ("Add", "Sub"):
            sign = 1 if call.kind == "Add" else -1
            factor, shift = ((factor, shift + sign * other) if position == 0 or sign == 1
                             else (-factor, other - shift))  # fmt: skip
        else:
            with np.errstate(all="ignore"):
                by = other if call.kind == "Mul" else 1 / other
                factor, shift = factor * by, shift * by
        self.give(call, INPUT, like=name)
        self.affine[call.outputs[0]] = factor, shift
        return True

    def affected(self) -> tuple[np.ndarray, np.ndarray]:
        """What the file does to its images first: a factor and a shift per channel."""
        return self._fed if self._fed is not None else (np.ones(3), np.zeros(3))

    def normalizes(self) -> Normalization | None:
        """mean and std of what the file is given; None: it takes its images as they are.

        Raises:
            BadInput: it turns dark into light, or makes nothing of its images.
        """
        if self._fed is None or np.array_equal(self._fed, (np.ones(3), np.zeros(3))):
            return None
        factor, shift = self._fed
        if not (np.isfinite(self._fed).all() and (factor > 0).all()):
            raise BadInput(f"{self.where}: multiplies its images by what isn't above 0")
        return tuple((-shift / factor).tolist()), tuple((1 / factor).tolist())


def _uses(program: Program) -> dict[str, int]:
    """How many nodes compute with each value, whatever names it has; the answer is one, too."""
    first: dict[str, str] = {}
    for call in program.calls:
        if call.kind in _RENAMING and call.inputs:
            own = first.get(call.inputs[0], call.inputs[0])
            first |= dict.fromkeys(call.outputs, own)
    uses: Counter[str] = Counter()
    for call in program.calls:
        beside = call.inputs[1:] if call.kind in _RENAMING else call.inputs
        uses.update(first.get(name, name) for name in beside)
    uses[first.get(program.answer, program.answer)] += 1
    names = {*first, *first.values(), *uses}
    return {name: uses[first.get(name, name)] for name in names}


def _ordinal(position: int) -> str:
    return ("first", "second", "third", "fourth", "fifth")[min(position, 4)]


def _per_channel(
    constant: np.ndarray, rank: int, nhwc: bool, channels: int
) -> np.ndarray | None:  # fmt: skip
    """A constant beside a map or a vector as one number per channel; None: it is another."""
    if constant.size == 1:
        return np.full(channels, constant.item(), np.float64)
    shape = (1,) * (rank - constant.ndim) + constant.shape
    axis = rank - 1 if nhwc or rank == 2 else 1
    fits = len(shape) == rank and constant.size == channels == shape[axis]
    return constant.reshape(-1).astype(np.float64) if fits else None


def _made(node: Node, given: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of what an operation makes, without the batch.

    Raises:
        ValueError: it can't be made of that.
    """
    first, op = given[0], node.op
    rank = {"linear": 1, "unflatten": 1, "relu": 0, "clamp": 0, "sigmoid": 0, "add": 0, "mul": 0}
    if len(first) != rank.get(op, 3) and rank.get(op, 3):
        raise ValueError(f"{op} of {first}")
    if op in ("conv2d", "max_pool", "avg_pool"):
        kernel = node.pair("kernel" if op == "conv2d" else "kernel_size")
        zeros = node.pair("padding") if op != "avg_pool" else (0, 0)
        apart = node.pair("dilation") if op != "avg_pool" else (1, 1)
        if op == "max_pool" and any(2 * p > k for p, k in zip(zeros, kernel, strict=True)):
            raise ValueError("more padding than half of the kernel")
        sides = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, p, d, s in zip(first[1:], kernel, zeros, apart, node.pair("stride"),
                                     strict=True)
        )  # fmt: skip
        if min(sides) < 1 or (op == "conv2d" and node.number("in") != first[0]):
            raise ValueError(f"{op} of {first}")
        return (node.number("out") if op == "conv2d" else first[0], *sides)
    if op == "linear":
        if first[0] != node.number("in"):
            raise ValueError(f"{op} of {first}")
        return (node.number("out"),)
    if op == "batch_norm" and node.number("features") != first[0]:
        raise ValueError(f"{op} of {first}")
    if op == "concat":
        if len({shape[1:] for shape in given}) != 1 or any(len(shape) != 3 for shape in given):
            raise ValueError(f"{op} of {given}")
        if (count := sum(shape[0] for shape in given)) > LARGEST:
            raise ValueError(f"{op} to {count} channels")
        return (count, *first[1:])
    if op in ("add", "mul"):
        whole = np.broadcast_shapes(*given) if len({len(g) for g in given}) == 1 else ()
        if not whole or (op == "add" and given[0] != given[1]) or whole not in given:
            raise ValueError(f"{op} of {given}")
        return whole
    if op in ("global_avg_pool", "unflatten"):
        return (first[0], 1, 1)
    return (math.prod(first),) if op == "flatten" else first


# One handler per operation.


def _two(value: Any, otherwise: int) -> tuple[int, int]:
    listed = [otherwise, otherwise] if value is None else list(value)
    if len(listed) != 2:
        raise ValueError("not of two axes")
    return int(listed[0]), int(listed[1])


def _padding(
    walk: _Import, call: Call, kernel: tuple[int, int], apart: tuple[int, int],
    stride: tuple[int, int],
) -> tuple[tuple[int, int], tuple[int, int]]:  # fmt: skip
    """What zeros are above and left, and below and right."""
    auto = call.attributes.get("auto_pad", b"NOTSET").decode()
    around = [int(n) for n in call.attributes.get("pads") or (0, 0, 0, 0)]
    if auto.startswith("SAME"):
        name = call.inputs[0]
        sides = walk.shapes[walk.values[name]][1:]
        more = [max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
                for n, k, d, s in zip(sides, kernel, apart, stride, strict=True)]  # fmt: skip
        low = [n - n // 2 if auto == "SAME_LOWER" else n // 2 for n in more]
        around = [*low, *(n - a for n, a in zip(more, low, strict=True))]
        walk.fixed_size |= stride != (1, 1)
    elif auto == "VALID":
        around = [0, 0, 0, 0]
    extra = walk.padded.get(call.inputs[0], (0, 0, 0, 0))
    top, left, bottom, right = (a + b for a, b in zip(around, extra, strict=True))
    return (top, left), (bottom, right)


def _conv(walk: _Import, call: Call) -> None:
    weight = torch.from_numpy(np.array(walk.constant(call, 1), np.float32))
    kernel = _two(weight.shape[2:], 1)
    if tuple(call.attributes.get("kernel_shape", kernel)) != kernel:
        raise ValueError("a weight of another kernel")
    stride, apart = (_two(call.attributes.get(key), 1) for key in ("strides", "dilations"))
    (top, left), (bottom, right) = _padding(walk, call, kernel, apart, stride)
    walk.padded.pop(call.inputs[0], None)
    weight, padding = walk.evened(weight, (left, right, top, bottom), apart)
    tensors = {"weight": weight.numpy()}
    if call.input(2):
        tensors["bias"] = walk.constant(call, 2)
    values = conv_attributes(
        weight, bias="bias" in tensors, stride=stride, padding=padding, dilation=apart,
        groups=int(call.attributes.get("group", 1)),
    )  # fmt: skip
    walk.learned(call, "conv2d", tensors, **values)


def _pad(walk: _Import, call: Call) -> None:
    """Zeros around a map, which the convolution behind it adds itself."""
    mode = call.attributes.get("mode", b"constant")
    around = walk.constant(call, 1).tolist() if call.input(1) else call.attributes["pads"]
    filled = walk.constant(call, 2).item() if call.input(2) else call.attributes.get("value", 0)
    if mode != b"constant" or filled != 0 or len(around) != 8 or call.input(3):
        raise walk.refused(call, "Pad of anything else than zeros isn't known")
    name = walk.value(call, last=True)
    height, width, channels = (1, 2, 3) if call.inputs[0] in walk.nhwc else (2, 3, 1)
    if any(around[i] or around[i + 4] for i in (0, channels)) or min(around) < 0:
        raise walk.refused(call, "Pad of other axes than height and width isn't known")
    walk.give(call, name, like=call.inputs[0])
    if name == INPUT:
        walk.affine[call.outputs[0]] = walk.affine[call.inputs[0]]
    if any(around):
        if walk._readers[call.outputs[0]] != 1:
            raise walk.refused(call, "Pad that more than one operation reads isn't known")
        walk.padded[call.outputs[0]] = tuple(
            int(around[i]) for i in (height, width, height + 4, width + 4)
        )


def _gemm(walk: _Import, call: Call) -> None:
    given = call.attributes
    if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1 or given.get("transA", 0):
        raise walk.refused(call, "Gemm with a factor or a turned input isn't known")
    weight = walk.constant(call, 1)
    _linear(walk, call, weight if given.get("transB", 0) else weight.T, 2)


def _matmul(walk: _Import, call: Call) -> None:
    _linear(walk, call, walk.constant(call, 1).T, None)


def _linear(walk: _Import, call: Call, weight: np.ndarray, bias: int | None) -> None:
    out, width = weight.shape
    tensors = {"weight": weight}
    if bias is not None and call.input(bias):
        stored = walk.constant(call, bias)
        if stored.shape not in ((), (1,), (out,), (1, out), (1, 1)):
            raise ValueError("a bias of another shape")
        tensors["bias"] = np.broadcast_to(stored.reshape(-1), (out,))
    values: dict[str, Value] = {"in": width, "out": out, "bias": "bias" in tensors}
    walk.learned(call, "linear", tensors, **values)


def _norm(walk: _Import, call: Call) -> None:
    given = call.attributes
    used = [o for o in call.outputs[1:] if o and walk._readers[o]]
    if given.get("training_mode", 0) or used or not given.get("spatial", 1):
        raise walk.refused(call, "BatchNormalization in training isn't known")
    keys = ("weight", "bias", "running_mean", "running_var")
    tensors = {key: walk.constant(call, i) for i, key in enumerate(keys, 1)}
    if len({t.shape for t in tensors.values()}) != 1:
        raise ValueError("of several sizes")
    eps, flat = float(given.get("epsilon", 1e-5)), walk.flat.get(call.inputs[0])
    if flat is not None:
        weight, bias, mean, var = (np.asarray(tensors[key], np.float64) for key in keys)
        scale = weight / np.sqrt(var + eps)
        walk.normed(call, flat, scale, bias - mean * scale)
        walk.folded_norm()
        return
    momentum = min(1.0, max(0.0, 1 - float(given.get("momentum", 0.9))))
    walk.learned(call, "batch_norm", tensors, features=len(tensors["weight"]),
                 eps=eps, momentum=round(momentum, 6))  # fmt: skip


def _joined(op: str) -> Callable[[_Import, Call], None]:
    def handler(walk: _Import, call: Call) -> None:
        if walk.scaled(call):
            return
        constant = next((i for i in (0, 1) if call.input(i) in walk.constants), None)
        if op == "add" and constant is not None and walk.biased(call, 1 - constant):
            return
        if constant is not None and walk.stretched(call, op, 1 - constant):
            return
        if op not in ("add", "mul"):
            raise walk.refused(call, f"{call.kind} of anything else than the image and constants "
                                     "isn't known")  # fmt: skip
        sources = [walk.value(call, i, last=True) for i in (0, 1)]
        ways = {name in walk.nhwc for name in call.inputs if len(walk.stored_shape(name)) == 3}
        if len(ways) == 2:
            raise walk.refused(call, f"{call.kind} of channels in two orders isn't known")
        name = walk.put(op, sources, walk.named(call, op))
        walk.give(call, name, like=call.inputs[0])

    return handler


def _concat(walk: _Import, call: Call) -> None:
    names = [walk.value(call, i, last=True) for i in range(len(call.inputs))]
    axes = {_channel_axis(walk, name) for name in call.inputs}
    if axes != {int(call.attributes["axis"]) % 4}:
        raise walk.refused(call, "Concat along another axis than a map's channels isn't known")
    parts = [(name, walk.shapes[name][0]) for name in names]
    walk.give(call, walk.concat(parts, walk.named(call, "concat")), like=call.inputs[0])


def _channel_axis(walk: _Import, name: str) -> int | None:
    """Of a map as the file stores it; None: it is a vector."""
    if len(walk.stored_shape(name)) != 3:
        return None
    return 3 if name in walk.nhwc else 1


def _slice(walk: _Import, call: Call) -> None:
    source, given = walk.value(call, last=True), call.attributes
    starts, ends, axes, steps = (
        walk.constant(call, i).tolist() if call.input(i) else given.get(key)
        for i, key in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps"))
    )
    (start,), (end,) = list(starts or []), list(ends or [])
    count = walk.shapes[source][0]
    if [int(a) % 4 for a in axes or [0]] != [_channel_axis(walk, call.inputs[0])] or (
        steps or [1]
    ) != [1]:
        raise walk.refused(call, "Slice along another axis than a map's channels isn't known")
    channels = range(count)[slice(int(start), int(end))]
    walk.give(call, walk.pick(source, count, channels, walk.named(call, "slice")),
              like=call.inputs[0])  # fmt: skip


def _split(walk: _Import, call: Call) -> None:
    source = walk.value(call, last=True)
    count, parts = walk.shapes[source][0], len(call.outputs)
    if int(call.attributes.get("axis", 0)) % 4 != _channel_axis(walk, call.inputs[0]):
        raise walk.refused(call, "Split along another axis than a map's channels isn't known")
    said = walk.constant(call, 1).tolist() if call.input(1) else call.attributes.get("split")
    each = -(-count // parts)
    sizes = [int(n) for n in said] if said else [min(each, count - each * i) for i in range(parts)]
    if sum(sizes) != count or min(sizes) < 1 or len(sizes) != parts:
        raise ValueError("parts of other sizes")
    first, base = 0, walk.named(call, "split")
    for number, (result, size) in enumerate(zip(call.outputs, sizes, strict=True)):
        picked = range(first, first + size)
        walk.values[result] = walk.pick(source, count, picked, walk.free(f"{base}.part{number}"))
        if call.inputs[0] in walk.nhwc:
            walk.nhwc.add(result)
        first += size


def _simple(op: str) -> Callable[[_Import, Call], None]:
    return lambda walk, call: walk.pointwise(call, op)


def _clip(walk: _Import, call: Call) -> None:
    low, high = (
        walk.constant(call, i).item() if call.input(i) else call.attributes.get(key)
        for i, key in ((1, "min"), (2, "max"))
    )
    if low != 0 or (high is not None and not high > 0):
        raise walk.refused(call, f"Clip from {low} to {high} isn't known")
    if high is None or high > 1e30:
        walk.pointwise(call, "relu")
    else:
        walk.pointwise(call, "clamp", most=float(high))


def _hardsigmoid(walk: _Import, call: Call) -> None:
    """clamp(alpha x + beta, 0, 1)."""
    alpha, beta = (float(call.attributes.get(k, v)) for k, v in (("alpha", 0.2), ("beta", 0.5)))
    source = walk.value(call, last=True)
    alpha = 1 / 6 if abs(alpha - 1 / 6) < 1e-6 else alpha  # a float32 of it
    gate = walk.hard_gate(source, walk.shapes[source], walk.named(call, "hardsigmoid"), alpha, beta)
    walk.give(call, gate, like=call.inputs[0])


def _hardswish(walk: _Import, call: Call) -> None:
    """x hardsigmoid(x)."""
    source, base = walk.value(call, last=True), walk.named(call, "hardswish")
    gate = walk.hard_gate(source, walk.shapes[source], base)
    walk.give(call, walk.put("mul", [source, gate], f"{base}.mul"), like=call.inputs[0])


def _pool(walk: _Import, call: Call) -> None:
    given, op = call.attributes, "max_pool" if call.kind == "MaxPool" else "avg_pool"
    kernel, stride = _two(given["kernel_shape"], 1), _two(given.get("strides"), 1)
    apart, source = _two(given.get("dilations"), 1), walk.value(call)
    padding, after = _padding(walk, call, kernel, apart, stride)
    sides = walk.shapes[source][1:]
    if padding != after:
        raise walk.refused(call, f"{call.kind} with other padding above and left {padding} than "
                                 f"below and right {after}, which")  # fmt: skip
    if given.get("ceil_mode", 0):  # rounding up is the same as down where nothing is left over
        left = [(n + 2 * p - d * (k - 1) - 1) % s for n, p, d, k, s in
                zip(sides, padding, apart, kernel, stride, strict=True)]  # fmt: skip
        if any(left):
            raise walk.refused(call, f"{call.kind} with ceil_mode at this image size isn't known")
        walk.fixed_size = True
    if op == "max_pool":
        walk.plain(call, op, kernel_size=kernel, stride=stride, padding=padding, dilation=apart)
        return
    if padding != (0, 0) or apart != (1, 1):
        raise walk.refused(call, "AveragePool with padding or dilation isn't known")
    if sides == kernel:
        walk.fixed_size = True
        walk.plain(call, "global_avg_pool")
    else:
        walk.plain(call, op, kernel_size=kernel, stride=stride)


def _mean(walk: _Import, call: Call) -> None:
    source, name = walk.value(call, last=True), call.inputs[0]
    axes = _onnx.axes(call, walk.constant(call, 1) if call.input(1) else None)
    over = [1, 2] if name in walk.nhwc else [2, 3]
    if len(walk.shapes[source]) != 3 or sorted(a % 4 for a in axes or []) != over:
        raise walk.refused(call, "ReduceMean over other axes than height and width isn't known")
    pooled = walk.put("global_avg_pool", [source], walk.named(call, "global_avg_pool"))
    if call.attributes.get("keepdims", 1):
        walk.give(call, pooled, like=name)
    else:
        walk.give(call, walk.put("flatten", [pooled], walk.named(call, "flatten")))


def _flatten(walk: _Import, call: Call) -> None:
    before = walk.stored_shape(call.inputs[0])
    if call.attributes.get("axis", 1) % (len(before) + 1) != 1:
        raise walk.refused(call, "Flatten of other axes than all behind the batch isn't known")
    _reshaped(walk, call, (math.prod(before),))


def _reshape(walk: _Import, call: Call) -> None:
    table = walk.tables.get(call.inputs[0])
    before = table.shape if table else walk.stored_shape(call.inputs[0])
    target = [int(n) for n in walk.constant(call, 1).reshape(-1)]
    if not call.attributes.get("allowzero", 0):
        target = [(BATCH, *before)[i] if n == 0 else n for i, n in enumerate(target)]
    first, *after = target
    if -1 in after:
        after[after.index(-1)] = math.prod(before) // math.prod(n for n in after if n != -1)
    if first not in (BATCH, -1, walk.batch or BATCH) or math.prod(after) != math.prod(
        before
    ):  # fmt: skip
        raise walk.refused(call, f"Reshape of {as_shape((0, *before))} to "
                                 f"{as_shape((0, *after))} isn't known")  # fmt: skip
    shape = walk.shapes[table.source if table else walk.values[call.inputs[0]]]
    if table is not None and tuple(after) == shape:
        rows, columns = table.rows
        order = turned(rows, columns) if table.turned else range(rows * columns)
        name = walk.named(call, "shuffle")
        walk.give(call, walk.pick(table.source, rows * columns, order, name))
    elif table is None and len(after) == 4 and tuple(after[2:]) == before[1:]:
        walk.tables[call.outputs[0]] = _Table(walk.value(call), (after[0], after[1]), False, before)
    else:
        _reshaped(walk, call, tuple(after))


def _squeeze(walk: _Import, call: Call) -> None:
    before = (BATCH, *walk.stored_shape(call.inputs[0]))
    axes = _onnx.axes(call, walk.constant(call, 1) if call.input(1) else None)
    if axes is None and walk.batch != 1:
        axes = [i for i, n in enumerate(before) if n == 1]
    gone = {a % len(before) for a in axes or [0]}
    if any(before[a] != 1 for a in gone):
        raise walk.refused(call, f"Squeeze of {as_shape((0, *before[1:]))} isn't known")
    _reshaped(walk, call, tuple(n for i, n in enumerate(before) if i and i not in gone))


def _unsqueeze(walk: _Import, call: Call) -> None:
    shape: list[int] = [BATCH, *walk.stored_shape(call.inputs[0])]
    axes = _onnx.axes(call, walk.constant(call, 1) if call.input(1) else None) or []
    for axis in sorted(a % (len(shape) + len(axes)) for a in axes):
        shape.insert(axis, 1)
    if shape[0] != BATCH:
        raise walk.refused(call, "Unsqueeze in front of the batch isn't known")
    _reshaped(walk, call, tuple(shape[1:]))


def _reshaped(walk: _Import, call: Call, after: tuple[int, ...]) -> None:
    """The same numbers in another shape: a map of one pixel and a vector are one another."""
    name = call.inputs[0]
    flat = walk.flat.get(name)
    if flat is not None and after == (math.prod(flat.sides),):
        _same(walk, call)
        return
    source = walk.values[name] if name in walk.columns else walk.value(call, last=True)
    before, shape = walk.stored_shape(name), walk.shapes[source]
    channels, one = shape[0], len(shape) == 1 or shape[1:] == (1, 1)
    if after == before:
        walk.give(call, source, like=name)
    elif one and after == (channels,):
        walk.fixed_size |= not walk.pooled(source)
        walk.give(call, walk.put("flatten", [source], walk.named(call, "flatten")))
    elif one and after in ((channels, 1, 1), (1, 1, channels)):
        if len(shape) == 1:
            source = walk.put("unflatten", [source], walk.named(call, "unflatten"))
        walk.give(call, source)
        if after != (channels, 1, 1):
            walk.nhwc.add(call.outputs[0])
    elif len(before) == 3 and after == (math.prod(before),):
        walk.give(call, source)  # a name for it; only a linear layer may read it
        walk.flat[call.outputs[0]] = Flat(source, shape, name in walk.nhwc)
    elif len(shape) == 1 and after == (channels, 1):
        walk.give(call, source)
        walk.columns.add(call.outputs[0])
    else:
        raise walk.refused(call, f"{call.kind} of {as_shape((0, *before))} to "
                                 f"{as_shape((0, *after))} isn't known")  # fmt: skip


def _expand(walk: _Import, call: Call) -> None:
    """A pixel as large as a map, which a product makes of it itself."""
    source, name = walk.value(call, last=True), call.inputs[0]
    shape, size = walk.shapes[source], [int(n) for n in walk.constant(call, 1).reshape(-1)]
    before = walk.stored_shape(name)
    size = [1] * (1 + len(before) - len(size)) + size
    batch, *after = size
    grown = any(n not in (1, own) for n, own in zip(after, before, strict=True))
    fits = batch in (1, BATCH, walk.batch or BATCH) and all(
        1 in (n, own) or n == own for n, own in zip(after, before, strict=True)
    )
    channels = after[-1] if name in walk.nhwc else after[0]
    if not fits or min(after) < 1 or (
        grown and (shape[1:] != (1, 1) or channels not in (1, shape[0]))
    ):  # fmt: skip
        raise walk.refused(call, "Expand of anything else than a pixel isn't known")
    walk.give(call, source, like=name)
    if grown:
        walk.spread[call.outputs[0]] = tuple(after[:-1] if name in walk.nhwc else after[1:])


def _transpose(walk: _Import, call: Call) -> None:
    """Channels second or last: here they are always second. Or a step of a channel shuffle."""
    table = walk.tables.get(call.inputs[0])
    if table is not None and list(call.attributes.get("perm") or []) == [0, 2, 1, 3, 4]:
        walk.tables[call.outputs[0]] = replace(table, turned=not table.turned)
        return
    source, name = walk.value(call, last=True), call.inputs[0]
    order = list(call.attributes.get("perm") or [])
    last = name in walk.nhwc
    if len(walk.shapes[source]) != 3 or order != ([0, 3, 1, 2] if last else [0, 2, 3, 1]):
        raise walk.refused(call, f"Transpose by {order} isn't known")
    walk.give(call, source)
    if not last:
        walk.nhwc.add(call.outputs[0])
    if name in walk.affine:
        walk.affine[call.outputs[0]] = walk.affine[name]


def _same(walk: _Import, call: Call) -> None:
    name = call.inputs[0]
    if name in walk.flat:
        walk.values[call.outputs[0]] = walk.values[name]
        walk.flat[call.outputs[0]] = walk.flat[name]
        return
    walk.give(call, walk.value(call, last=True), like=name)
    if name in walk.affine:
        walk.affine[call.outputs[0]] = walk.affine[name]


def _cast(walk: _Import, call: Call) -> None:
    if call.attributes["to"] != 1:
        raise walk.refused(call, "Cast to anything else than float32 isn't known")
    _same(walk, call)


def _dropout(walk: _Import, call: Call) -> None:
    share = walk.constant(call, 1).item() if call.input(1) else call.attributes.get("ratio", 0.5)
    walk.dropped(float(share))
    _same(walk, call)


def _softmax(walk: _Import, call: Call) -> None:
    """At the end: left out, what stands before it are the logits."""
    source = walk.value(call)
    axis = call.attributes.get("axis", 1 if walk.program.opset < 13 else -1)
    if call.outputs[0] != walk.program.answer or len(walk.shapes[source]) != 1 or axis % 2 != 1:
        raise walk.refused(call, f"{call.kind} before the end isn't known")
    walk.softened(call.kind)
    walk.give(call, source)
    walk.last.add(call.outputs[0])


# What may give a value another name.
_RENAMING = ("Identity", "Transpose", "Cast", "Dropout", "Reshape", "Flatten", "Squeeze",
             "Unsqueeze", "Expand", "Slice", "Split", "Concat", "Pad", "Softmax",
             "LogSoftmax")  # fmt: skip
_CALLS: dict[str, Callable[[_Import, Call], None]] = {
    "Conv": _conv, "Gemm": _gemm, "MatMul": _matmul, "BatchNormalization": _norm, "Pad": _pad,
    "Relu": _simple("relu"), "Sigmoid": _simple("sigmoid"), "Clip": _clip,
    "HardSigmoid": _hardsigmoid, "HardSwish": _hardswish,
    "Add": _joined("add"), "Mul": _joined("mul"), "Sub": _joined("sub"), "Div": _joined("div"),
    "MaxPool": _pool, "AveragePool": _pool,
    "GlobalAveragePool": lambda walk, call: walk.plain(call, "global_avg_pool"),
    "ReduceMean": _mean, "Flatten": _flatten, "Reshape": _reshape, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Expand": _expand, "Transpose": _transpose,
    "Identity": _same, "Cast": _cast,
    "Concat": _concat, "Slice": _slice, "Split": _split,
    "Dropout": _dropout, "Softmax": _softmax, "LogSoftmax": _softmax,
}  # fmt: skip
