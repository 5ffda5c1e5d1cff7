"""Is a file exactly the known graph? Each operation is matched to one of the network's.

A file is walked in its own order, and each tensor gets the name of what the network has there.
Nothing is overlooked: an operation is one of the network's (each of these exactly once: what it
reads, its weights, biases, strides, padding and ReLU), or changes nothing (a reshape of one value
per channel, what quantizes to the trained scale); everything else is named.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgeres.models.modules import Classifier
from edgeres.targets._palette import LARGEST_PLAIN, PALETTE_BITS, palette
from edgeres.targets._structure import Step, Structure
from edgeres.types import QuantParams, ScaleTable
from edgeres.verification.known import Known, operations
from edgeres.verification.scales import codes, same_params, shown, trimmed

_OF_WEIGHTS = ("conv", "linear")
_FLOATING = ("float16", "float32")
_MOVING = ("max_pool", "concat")


def mismatches(
    stored: Structure, model: Classifier, scales: ScaleTable | None, precision: str
) -> tuple[str, ...]:
    """What of a file isn't the network, and what of the network isn't in the file.

    Args:
        model: folded, weights on their grid.
        scales: as the file holds them; None for a float file.
        precision: of the target, which says how a float file's weights may be stored.

    Returns:
        A sentence each; none if the file is exactly the network.
    """
    walk = _Walk(stored, model, scales or {}, precision)
    return (*walk.run(), *stored.left_over)


@dataclass(frozen=True)
class _Value:
    """What a tensor of the file is in the network.

    Attributes:
        known: the operation that made it; "input" is the image.
        coded: whose scale it would have.
        relu: what has to be done before it is that operation's output is done.
        codes: the scale in which it is stored; None for real numbers.
        rounded: its numbers are codes of its scale, whether stored so or dequantized.
        padding: zeros put around it, and the number that they are.
        negated: its sign is turned.
        flat: it was reshaped to a vector, which an add or mul would spread along a map's rows.
    """

    known: str
    coded: str
    shape: tuple[int, ...]
    relu: bool = True
    codes: QuantParams | None = None
    rounded: bool = False
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    fill: float = 0.0
    negated: bool = False
    flat: bool = False


class _Mismatch(Exception):
    """An operation that the network doesn't have; its text follows the operation's name."""


class _Walk:
    """One file's steps against one network's operations."""

    def __init__(self, stored: Structure, model: Classifier, scales: ScaleTable, precision: str):
        self.stored, self.model, self.scales = stored, model, scales
        self.precision = precision
        self.weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
        self.known = operations(model.spec)
        self.waiting = {k.name: k for k in self.known}
        self.by_name = dict(self.waiting)
        self.values: dict[str, _Value] = {}
        self.unpacked: set[str] = set()  # what was codes just before

    def run(self) -> Iterator[str]:
        px = self.model.spec.preprocess.size_px
        image = _Value("input", "input", (3, px, px))
        yield from self._put(self.stored.input, image, "its input")
        read = {name for step in self.stored.steps for name in step.inputs} | {self.stored.output}
        for step in self.stored.steps:
            if step.output in self.values:
                yield f"{step.name}: writes a tensor that is there already"
                continue
            if step.output not in read:
                yield f"{step.name}: nothing reads what it computes"
            unknown = [name for name in step.inputs if name not in self.values]
            if unknown:
                yield f"{step.name}: reads what is not the network's"
                continue
            try:
                value = self._matched(step)
            except _Mismatch as error:
                yield f"{step.name}: {error}"
                continue
            except (ValueError, TypeError, IndexError, ArithmeticError):
                yield f"{step.name}: its parts don't fit together"
                continue
            yield from self._put(step.output, value, step.name)
        yield from self._end()

    def _put(self, name: str, value: _Value, who: str) -> Iterator[str]:
        """Take a tensor into account; one stored as codes has to have the network's scale."""
        stored = self.stored.quantization.get(name)
        if stored is not None and value.codes is None:
            try:
                value = self._quantized(value, stored)
            except _Mismatch as error:
                yield f"{who}: {error}"
        elif value.codes is not None and stored is not None and stored != value.codes:
            yield f"{who}: its output's scale isn't that of the codes it moves"
        declared = self.stored.shapes.get(name)
        if declared is not None and declared not in _forms(value):
            yield f"{who}: declares {declared} for what is {_forms(value)[0]}"
        self.values[name] = value

    def _end(self) -> Iterator[str]:
        last = self.known[-1]
        value = self.values.get(self.stored.output)
        if value is None or value.known != last.name:
            yield f"its output isn't the network's, {last.name}"
        else:
            for problem in self._unready(value):
                yield f"its output: {problem}"
        for known in self.waiting.values():
            yield f"{known.name} of the network isn't in the file"

    def _matched(self, step: Step) -> _Value:
        values = [self.values[name] for name in step.inputs]
        steps: dict[str, Callable[[Step, _Value], _Value]] = {
            "relu": self._relu, "pad": self._pad, "reshape": self._reshape, "cast": self._cast,
            "neg": self._neg, "quantize": self._quantize, "dequantize": self._dequantize,
        }  # fmt: skip
        if step.op in steps:
            if len(values) != 1:
                raise _Mismatch(f"has {len(values)} inputs")
            if step.relu:
                raise _Mismatch("has a ReLU that the network hasn't")
            return steps[step.op](step, values[0])
        if step.op == "unknown" or not values:
            raise _Mismatch("the network has no such operation")
        return self._operation(step, values)

    def _operation(self, step: Step, values: list[_Value]) -> _Value:
        """One of the network's own operations."""
        order = list if step.op == "concat" else sorted  # a sum has none
        sources = order(v.known for v in values)
        fitting = [k for k in self.waiting.values()
                   if k.op == step.op and order(k.sources) == sources]  # fmt: skip
        if not fitting:
            raise _Mismatch(f"the network has no {step.op} of {' and '.join(sources)} here")
        reasons = []
        for known in fitting:
            reason = self._difference(step, known, values)
            if reason is None:
                del self.waiting[known.name]
                made = _Value(known.name, known.coded, known.shape, step.relu or not known.relu)
                if known.op in _MOVING and known.coded in self.scales:  # makes no codes
                    rounded = all(value.rounded for value in values)
                    made = dataclasses.replace(made, codes=values[0].codes, rounded=rounded)
                return made
            reasons.append(f"{known.name}: {reason}")
        raise _Mismatch(reasons[0])

    def _difference(self, step: Step, known: Known, values: list[_Value]) -> str | None:
        """Why a step isn't an operation of the network; None if it is."""
        for value in values:
            for problem in self._unready(value):
                return problem
            if value.negated:
                return "a sign is turned"
        if step.relu and not known.relu:
            return "has a ReLU that the network hasn't"
        if step.relu and step.most != self._most(known):
            return "its ReLU ends elsewhere than the network's"
        if step.op in ("conv", "max_pool"):
            misplaced = self._window(step, known, values[0])
            if misplaced:
                return misplaced
        elif any(any(value.padding) for value in values):
            return "reads a padded tensor"
        if step.op == "concat" and len({value.codes for value in values}) > 1:
            return "joins codes of other scales, or codes and real numbers"
        if len({value.flat or len(value.shape) == 1 for value in values}) > 1:
            return "reads a vector beside a map"
        if step.op in _OF_WEIGHTS:
            return self._weight(step, known) or self._bias(step, known)
        return None

    def _unready(self, value: _Value) -> Iterator[str]:
        """What is missing until a tensor is what the network has there."""
        if value.coded in self.scales:
            if not value.rounded:
                yield f"{value.known} isn't quantized"
        elif value.rounded:
            yield f"{value.known} is quantized, and shouldn't be"
        if not value.relu:
            yield f"{value.known} has no ReLU"

    def _window(self, step: Step, known: Known, value: _Value) -> str | None:
        """Strides, dilation, groups and padding (above and left; the rest by the output's size)."""
        groups = step.groups
        if groups is None and step.weight is not None:
            groups = value.shape[0] // step.weight.shape[1]
        kernel = step.kernel
        if step.weight is not None:  # zeros below and to the right change nothing
            kernel = trimmed(step.weight, (*step.weight.shape[:2], *known.kernel)).shape[2:]
        for what, ours, theirs in (
            ("kernel", kernel, known.kernel), ("stride", step.stride, known.stride),
            ("dilation", step.dilation, known.dilation), ("groups", groups, known.groups),
        ):  # fmt: skip
            if ours != theirs:
                return f"its {what} is {ours}, the network's {theirs}"
        spans = [d * (k - 1) + 1 for d, k in zip(known.dilation, step.kernel, strict=True)]
        sizes = [a + n + b for n, a, b in zip(value.shape[1:], value.padding[:2],
                                              value.padding[2:], strict=True)]  # fmt: skip
        own = step.padding if step.padding is not None else _same_padding(sizes, spans, step.stride)
        around = tuple(a + b for a, b in zip(own, value.padding, strict=True))
        if around[:2] != known.padding or min(own) < 0:
            return f"its padding is {around}, the network's {known.padding}"
        given = tuple(
            (n + before + after - span) // stride + 1
            for n, before, after, span, stride in zip(
                sizes, own[:2], own[2:], spans, known.stride, strict=True
            )
        )
        if given != known.shape[1:]:
            return f"its output is {given}, the network's {known.shape[1:]}"
        if any(value.padding) and not self._harmless(value, step.op):
            return f"it is padded with {value.fill:g}"
        return None

    def _harmless(self, value: _Value, op: str) -> bool:
        """Whether a tensor is padded with zeros, or with what a max pool never takes."""
        zero = value.codes.zero_point[0] if value.codes else 0
        if op == "conv":
            return value.fill == zero
        known = self.by_name.get(value.known)
        return value.fill < zero or (value.fill == zero and known is not None and known.relu)

    def _weight(self, step: Step, known: Known) -> str | None:
        name, stored = f"{known.name}.weight", step.weight
        if stored is None:
            return "its weights aren't constants"
        if name in self.scales:
            expected: np.ndarray = codes(self.model, self.scales, name)
            if stored.dtype != np.int8:
                return f"its weights are {stored.dtype}, not int8"
            params = step.weight_quantization
            kind = self.scales[name].dtype if self.precision == "int4" else "int8"
            if params is not None and "int4" in {params.dtype, kind} and params.dtype != kind:
                return f"its weights are stored as {params.dtype}, not {kind}"
            if params is None or not same_params(params, self.scales[name]):
                return f"its weights' scale isn't the trained one ({shown(self.scales[name])})"
        else:
            expected = self.weights[name]
        stored = trimmed(stored, expected.shape)
        if stored.shape != expected.shape:
            return f"its weights are {stored.shape}, the network's {expected.shape}"
        if name in self.scales:
            wrong = stored != expected
        else:
            wrong = _other_weights(stored, step.weight_quantization, expected, self.precision)
        if wrong.any():
            return f"{int(wrong.sum())} of its {wrong.size} weights are others"
        return None

    def _bias(self, step: Step, known: Known) -> str | None:
        expected = self.weights.get(f"{known.name}.bias")
        if expected is None:
            expected = np.zeros(known.shape[0], np.float32)
        stored = step.bias if step.bias is not None else np.zeros_like(expected)
        if stored.shape != expected.shape:
            return f"its biases are {stored.shape}, the network's {expected.shape}"
        if stored.dtype.kind == "i":
            steps = self._steps(known)
            if steps is None:
                return "its biases are whole numbers, and it has no scales"
            wanted: np.ndarray = np.rint(expected.astype(np.float64) / steps)
        elif str(stored.dtype) in _FLOATING:
            wanted = expected.astype(stored.dtype)
        else:
            return f"its biases are {stored.dtype}"
        wrong = np.flatnonzero(stored != wanted)
        if len(wrong):
            at = int(wrong[0])
            return (f"the bias of channel {at} is {stored[at]:g}, the network's {wanted[at]:g}"
                    + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""))  # fmt: skip
        return None

    def _steps(self, known: Known) -> np.ndarray | None:
        """What one unit of each whole-numbered bias is worth."""
        weight = self.scales.get(f"{known.name}.weight")
        source = self.by_name.get(known.sources[0])
        read = self.scales.get(source.coded if source else "input")
        if weight is None or read is None:
            return None
        steps: np.ndarray = np.asarray(weight.scale, np.float64) * read.scale[0]
        return steps

    def _relu(self, step: Step, value: _Value) -> _Value:
        known = self.by_name.get(value.known)
        if known is None or not known.relu or value.negated:
            raise _Mismatch(f"the network has no ReLU behind {value.known}")
        if step.fill != (value.codes.zero_point[0] if value.codes else 0):
            raise _Mismatch(f"it begins elsewhere than the network's behind {value.known}")
        if step.most != self._most(known):
            raise _Mismatch(f"it ends elsewhere than the network's behind {value.known}")
        return dataclasses.replace(value, relu=True)

    def _most(self, known: Known) -> float:
        """Where a ReLU has to end; codes end there by their scale."""
        return math.inf if known.coded in self.scales else known.most

    def _pad(self, step: Step, value: _Value) -> _Value:
        if step.padding is None or min(step.padding) < 0 or any(value.padding):
            raise _Mismatch("the network has no such padding")
        return dataclasses.replace(value, padding=step.padding, fill=step.fill)

    def _reshape(self, step: Step, value: _Value) -> _Value:
        """One value per channel may be a vector or a map of one pixel."""
        first, *rest = step.shape or (0,)
        open_sizes = [*step.shape].count(-1)
        channels = value.shape[0]
        one = value.shape[1:] in ((), (1, 1)) and not any(value.padding)
        batch = first in (-1, 0) or (first == 1 and self.stored.batch == 1)
        sizes = tuple(channels if n == -1 else n for n in rest)
        forms = ((channels,), (channels, 1, 1), (1, 1, channels))  # the same numbers in all
        if not one or not batch or open_sizes > 1 or sizes not in forms:
            raise _Mismatch(f"reshapes {value.known} to {step.shape}")
        flat = len(sizes) == 1
        return dataclasses.replace(value, flat=flat, shape=value.shape if flat else forms[1])

    def _cast(self, step: Step, value: _Value) -> _Value:
        """A float16 file takes and gives float32."""
        ends = (("input", "float16"), (self.known[-1].name, "float32"))
        if self.precision != "fp16" or (value.known, step.dtype) not in ends:
            raise _Mismatch(f"makes {step.dtype or 'another type'} of {value.known}")
        return value

    def _neg(self, step: Step, value: _Value) -> _Value:
        """Two of them keep a float layer apart from the codes behind it."""
        if value.codes is not None or any(value.padding) or not self.scales:
            raise _Mismatch("turns the sign of codes, of padding, or in a float file")
        return dataclasses.replace(value, negated=not value.negated)

    def _quantize(self, step: Step, value: _Value) -> _Value:
        params = self.stored.quantization.get(step.output)
        if params is None:
            raise _Mismatch("its scale isn't a constant")
        if step.inputs[0] in self.unpacked:
            raise _Mismatch(f"quantizes {value.known} again")
        return self._quantized(value, params)

    def _quantized(self, value: _Value, params: QuantParams) -> _Value:
        """A value as codes of the trained scale, behind its ReLU (which codes from zero on are)."""
        trained = self.scales.get(value.coded)
        if trained is None:
            raise _Mismatch(f"quantizes {value.known}, which the network leaves float")
        if value.negated or any(value.padding):
            raise _Mismatch(f"quantizes {value.known} changed")
        if not same_params(params, trained):
            raise _Mismatch(
                f"quantizes {value.known} with {shown(params)}, trained {shown(trained)}"
            )
        unsigned = (params.dtype, trained.dtype) == ("uint8", "int8")  # the same codes, 128 more
        if params.dtype != trained.dtype and not unsigned:
            raise _Mismatch(f"stores {value.known} as {params.dtype}, trained {trained.dtype}")
        lowest = int(np.iinfo(params.dtype).min)
        relu = value.relu or params.zero_point[0] == lowest
        return dataclasses.replace(value, codes=params, rounded=True, relu=relu)

    def _dequantize(self, step: Step, value: _Value) -> _Value:
        if value.codes is None:
            raise _Mismatch(f"{value.known} isn't quantized")
        params = self.stored.quantization.get(step.inputs[0])
        if params != value.codes:
            raise _Mismatch(f"dequantizes {value.known} with another scale than it was made with")
        fill = (value.fill - params.zero_point[0]) * params.scale[0] if any(value.padding) else 0.0
        self.unpacked.add(step.output)
        return dataclasses.replace(value, codes=None, fill=fill)


def _forms(value: _Value) -> tuple[tuple[int, ...], ...]:
    """The shapes that a tensor may be declared with; one value per channel may be a vector."""
    channels, *sides = value.shape
    around = zip(sides, value.padding[:2], value.padding[2:], strict=False)
    whole = (channels, *(before + n + after for n, before, after in around))
    return (whole, (channels,), (channels, 1, 1)) if whole[1:] in ((), (1, 1)) else (whole,)


def _same_padding(sizes: list[int], spans: list[int], stride: tuple[int, int]) -> tuple[int, ...]:
    """TensorFlow's "SAME": as many outputs as there are strides, the odd zero behind."""
    needed = [max((-(-n // s) - 1) * s + span - n, 0)
              for n, span, s in zip(sizes, spans, stride, strict=True)]  # fmt: skip
    before = [n // 2 for n in needed]
    return (*before, *(n - b for n, b in zip(needed, before, strict=True)))


def _other_weights(
    stored: np.ndarray, params: QuantParams | None, expected: np.ndarray, precision: str
) -> np.ndarray:
    """Where a float layer's stored weights aren't the network's, as its precision holds them."""
    wrong: np.ndarray = np.ones(expected.shape, bool)
    if stored.dtype == np.int8 and params is not None and precision == "dynamic":
        scale = np.asarray(params.scale, np.float32).reshape(-1, *[1] * (expected.ndim - 1))
        peaks = np.abs(expected).reshape(len(params.scale), -1).max(1).reshape(scale.shape)
        near = np.abs(stored * scale - expected) <= scale * np.float32(0.5001)
        wrong = ~(near & ((np.abs(scale - peaks / 127) <= 1e-5 * scale) | (peaks == 0)))
    elif stored.dtype == np.float16 and precision not in ("fp32", "dynamic"):
        limit = np.finfo(np.float16).max
        wrong = stored != _palettized(expected.clip(-limit, limit).astype(np.float16), precision)
    elif stored.dtype == np.float32 and precision not in ("fp16", "palettized"):
        wrong = stored != expected
    return wrong


def _palettized(weight: np.ndarray, precision: str) -> np.ndarray:
    """A weight as the values of its table, if it is large enough to have one."""
    if precision != "palettized" or weight.size <= LARGEST_PLAIN:
        return weight
    table, indices = palette(weight, PALETTE_BITS)
    values: np.ndarray = table[indices].reshape(weight.shape)
    return values
