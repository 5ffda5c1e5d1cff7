"""A program of integers as one of float numbers, and what its codes stand for.

QuantizeLinear and DequantizeLinear become names of the same value, QLinear… operators the float
ones that they stand for, stored codes the numbers that they are. Nothing is rounded: what the codes
of a weight stand for is a float32 number for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgeres.errors import BadInput
from edgeres.network._onnx import Call, Program, fold
from edgeres.types import QuantParams

_MS = "com.microsoft."
_QUANTIZE = ("QuantizeLinear", f"{_MS}QuantizeLinear")
_DEQUANTIZE = ("DequantizeLinear", f"{_MS}DequantizeLinear")
# What gives codes another place: its answer has its input's scale.
_MOVING = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity",
           "Slice", "Split", "Dropout")  # fmt: skip
_ENDING = ("Conv", "Gemm", "MatMul", "Add")  # in a ReLU, where their codes begin at zero


@dataclass(frozen=True)
class _Form:
    """An integer operator's inputs by position.

    Attributes:
        operands: where a value, its scale and its zero point stand one behind another.
        answer: where the answer's scale and zero point stand.
        bias: where int32 codes in steps of both operands' scales stand.
    """

    kind: str
    operands: tuple[int, ...]
    answer: int
    bias: int | None = None


_FORMS = {
    "QLinearConv": _Form("Conv", (0, 3), 6, 8),
    "QLinearMatMul": _Form("MatMul", (0, 3), 6),
    f"{_MS}QGemm": _Form("Gemm", (0, 3), 7, 6),
    f"{_MS}QLinearAdd": _Form("Add", (0, 3), 6),
    f"{_MS}QLinearMul": _Form("Mul", (0, 3), 6),
    f"{_MS}QLinearGlobalAveragePool": _Form("GlobalAveragePool", (0,), 3),
    f"{_MS}QLinearAveragePool": _Form("AveragePool", (0,), 3),
    f"{_MS}QLinearSigmoid": _Form("Sigmoid", (0,), 3),
    f"{_MS}QLinearReduceMean": _Form("ReduceMean", (0,), 3),
    f"{_MS}QLinearSoftmax": _Form("Softmax", (0,), 3),
}
_CONCAT = f"{_MS}QLinearConcat"


@dataclass(frozen=True)
class Stored:
    """What a program's codes stand for, by the names that things have in it.

    Attributes:
        scales: of values and of stored weights, as int8.
        biases: codes of stored biases.
        strange: why the known graph can't have the same codes, a sentence each.
        logits: what is asked answers before the softmax at the end, if there is one.
    """

    scales: Mapping[str, QuantParams]
    biases: Mapping[str, np.ndarray]
    strange: tuple[str, ...]
    logits: bool = False


def is_integer(kinds: set[str]) -> bool:
    """Whether a program with operations of these kinds computes with codes."""
    return bool(kinds & {*_QUANTIZE, *_DEQUANTIZE, *_FORMS, _CONCAT})


def in_floats(program: Program, where: str) -> tuple[Program, Stored]:
    """The program in float numbers.

    Raises:
        BadInput: it computes with codes what can't be said in float numbers.
    """
    walk = _Walk(where, program, dict(program.constants))
    walk.run(program.image_type)
    floats = replace(program, calls=tuple(walk.calls), constants=walk.constants,
                     answer=walk.answer())  # fmt: skip
    return floats, Stored(walk.scales, walk.biases, tuple(walk.strange))


@dataclass
class _Walk:
    """One walk over a program's calls.

    Attributes:
        constants: of both programs: codes, and the numbers that they stand for.
        types: values that are codes -> their type, as numpy calls it.
        scales: of them, and of values that were codes just before.
        renamed: constants -> the numbers that they stand for.
        made: a value -> what makes it.
    """

    where: str
    program: Program
    constants: dict[str, np.ndarray]
    calls: list[Call] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    scales: dict[str, QuantParams] = field(default_factory=dict)
    biases: dict[str, np.ndarray] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    made: dict[str, Call] = field(default_factory=dict)

    def run(self, image: str) -> None:
        if image != "float32":
            self.types[self.program.image] = image
        for call in self.program.calls:
            try:
                self._step(call)
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
                    MemoryError) as error:  # fmt: skip
                raise self._refused(call, "with these arguments isn't known") from error
        if image != "float32" and self.program.image not in self.scales:
            raise BadInput(f"{self.where}: takes {image}, and nothing says what its codes stand "
                           "for; a network here takes float32 images, or codes: if it prepares "
                           "pixels itself, export it without that, and say it with --preprocess"
                           )  # fmt: skip

    def answer(self) -> str:
        """The program's answer; a softmax, where only a change of type stands behind it."""
        name = self.program.answer
        while name in self.made and self.made[name].kind == "Identity":
            name = self.made[name].inputs[0]
        last = self.made.get(name)
        if last is None or last.kind not in ("Softmax", "LogSoftmax"):
            return self.program.answer
        self.calls = [c for c in self.calls if c.kind != "Identity" or c.inputs[0] != name]
        return name

    def _step(self, call: Call) -> None:
        if call.kind == "Constant":
            (value,) = call.attributes.values()
            self.constants[call.outputs[0]] = np.asarray(value)
        elif call.kind in _QUANTIZE:
            self._quantize(call)
        elif call.kind in _DEQUANTIZE:
            self._dequantize(call)
        elif call.kind in _FORMS:
            self._integers(call, _FORMS[call.kind])
        elif call.kind == _CONCAT:
            self._concat(call)
        else:
            self._plain(call)

    def _quantize(self, call: Call) -> None:
        source, result = call.inputs[0], call.outputs[0]
        kind = self._type(call)
        params = self._params(call, 1, kind)
        if source in self.constants:  # a weight that is rounded when it is loaded
            axis = int(call.attributes.get("axis", 1))
            self.constants[result] = _codes(self.constants[source], params, axis, kind)
            self.types[result] = kind
            return
        self.types[result] = kind
        self._name(call, source, result, params)

    def _dequantize(self, call: Call) -> None:
        source, result = call.inputs[0], call.outputs[0]
        if source in self.constants:
            self._stored(call, 0, result)
            return
        self._expect(call, source, self._params(call, 1, self.types[source]))
        self._emit(replace(call, kind="Identity", inputs=(source,), attributes={}))
        self.scales[result] = self.scales[source]

    def _integers(self, call: Call, form: _Form) -> None:
        if call.attributes.get("channels_last", 0):
            raise self._refused(call, "of channels that come last isn't known")
        inputs = []
        for position in form.operands:
            name = call.inputs[position]
            if name in self.constants:
                inputs.append(self._stored(call, position))
            else:
                self._expect(call, name, self._params(call, position + 1, self.types[name]))
                inputs.append(name)
        if form.bias is not None and call.input(form.bias):
            scales = [self._params(call, p + 1, "int8").scale for p in form.operands]
            steps = np.asarray(scales[0], np.float64) * np.asarray(scales[1], np.float64)
            inputs.append(self._bias(call.inputs[form.bias], steps))
        result = call.outputs[0]
        real = replace(call, kind=form.kind, inputs=tuple(inputs))
        if form.kind == "Softmax" or not call.input(form.answer):
            self._emit(real)
            return
        zero = self.constants[call.inputs[form.answer + 1]]
        self.types[result] = zero.dtype.name
        before = f"{result} in float"
        self._emit(replace(real, outputs=(before,)))
        self._name(call, before, result, self._params(call, form.answer, zero.dtype.name))

    def _concat(self, call: Call) -> None:
        kind = self.constants[call.inputs[1]].dtype.name
        params = self._params(call, 0, kind)
        names = call.inputs[2::3]
        for number, name in enumerate(names):
            self._expect(call, name, self._params(call, 3 + 3 * number, self.types[name]))
        self._emit(replace(call, kind="Concat", inputs=tuple(names)))
        self.types[call.outputs[0]], self.scales[call.outputs[0]] = kind, params

    def _plain(self, call: Call) -> None:
        """An operation of float numbers, or one that moves codes or cuts them off."""
        if call.inputs and all(name in self.constants for name in call.inputs):
            known = fold(call, [self.constants[name] for name in call.inputs])
            if known is not None and known.dtype in (np.int8, np.uint8):  # codes of a weight
                self.constants[call.outputs[0]] = known
                return
        coded = [name for name in call.inputs if name in self.types and name not in self.constants]
        call = replace(call, inputs=tuple(self.renamed.get(name, name) for name in call.inputs))
        if not coded:
            before = self.made.get(call.input(0))
            while before is not None and before.kind == "Identity":
                before = self.made.get(before.inputs[0])
            twice = call.kind == "Relu" and before is not None and before.kind == "Relu"
            self._emit(replace(call, kind="Identity") if twice else call)
            return
        first = call.inputs[0]
        params = self.scales[first]
        if call.kind in ("Clip", "Pad"):
            ends = [self._real(call, name, params) for name in call.inputs[1:]]
            ends = [*call.inputs[1:2], *ends[1:]] if call.kind == "Pad" else ends
            call = replace(call, inputs=(first, *ends))
        elif call.kind == "Concat":
            if any(self.scales.get(name) != params for name in call.inputs):
                raise self._refused(call, "of codes of several scales isn't known")
        elif call.kind not in _MOVING:
            raise self._refused(call, "of codes isn't known")
        self._emit(call)
        for name in call.outputs:
            self.types[name], self.scales[name] = self.types[first], params

    def _real(self, call: Call, name: str, params: QuantParams) -> str:
        """What a constant code stands for, as another constant; "" where it cuts nothing off."""
        if not name:
            return ""
        code = self.constants[name]
        (whole,) = code.reshape(-1).tolist()
        if code.dtype.kind not in "iu" or len(params.scale) != 1:
            raise ValueError("no code")
        low = np.iinfo(code.dtype).min
        if call.kind == "Clip" and whole in (low, np.iinfo(code.dtype).max):
            return self._limit(name, whole == low, params)
        shift = 128 if code.dtype == np.uint8 else 0
        value = np.float32((whole - shift - params.zero_point[0]) * params.scale[0])
        made = f"{name} of {call.outputs[0]}"
        self.constants[made] = np.asarray(value)
        return made

    def _limit(self, name: str, lowest: bool, params: QuantParams) -> str:
        """An end of all codes: zero, if that is the lowest's number, else none at all."""
        if lowest and params.zero_point[0] == -128:
            self.constants[f"{name} as zero"] = np.zeros((), np.float32)
            return f"{name} as zero"
        return ""

    def _name(self, call: Call, source: str, result: str, params: QuantParams) -> None:
        """Say that a value is rounded to codes.

        Where these begin at zero, what is below it is cut off, as by a ReLU.
        """
        before = self.made.get(source)
        begins = params.zero_point == (-128,) and params.dtype == "int8"
        if begins and before is not None and before.kind in _ENDING:
            self._emit(Call("Relu", call.label, (source,), (result,), {}, before.scope, False))
        else:
            self._emit(Call("Identity", call.label, (source,), (result,), {}, call.scope, False))
        if len(params.scale) != 1:
            self.strange.append(f"the activation '{_short(source)}' has a scale per channel")
        elif params.dtype != "int8":
            self.strange.append(f"the activation '{_short(source)}' is of {params.dtype}")
        self.scales[result] = params

    def _expect(self, call: Call, name: str, params: QuantParams) -> None:
        """Compare what a node says of codes that it reads with what their maker said."""
        known = self.scales.setdefault(name, params)
        if known != params:
            self.strange.append(f"'{call.label}' reads '{_short(name)}' with another scale or zero "
                                "point than it was written with")  # fmt: skip

    def _stored(self, call: Call, position: int, result: str = "") -> str:
        """The numbers that stored codes stand for, under a name of their own."""
        name = call.inputs[position]
        codes = self.constants[name]
        params = self._params(call, position + 1, codes.dtype.name)
        if call.attributes.get("block_size", 0):
            raise self._refused(call, "with a scale per block isn't known")
        if codes.dtype == np.int32:
            clean = self._bias(name, np.asarray(params.scale))
        else:
            clean = self._clean(name)
            axis = int(call.attributes.get("axis", 1)) if call.kind in _DEQUANTIZE else (
                0 if call.kind == "QLinearConv" or call.attributes.get("transB", 0) else -1
            )  # fmt: skip
            self.constants[clean] = _numbers(codes, params, axis)
            if codes.dtype.name not in ("int8", "uint8"):
                self.strange.append(f"the weight '{_short(name)}' is of {codes.dtype.name}")
            self.scales[clean] = replace(params, zero_point=(0,) * len(params.scale), dtype="int8",
                                         axis=0 if len(params.scale) > 1 else None)  # fmt: skip
        if result:
            self.renamed[result] = clean
        return clean

    def _bias(self, name: str, steps: np.ndarray) -> str:
        clean = self._clean(name)
        codes = self.constants[name]
        self.constants[clean] = (codes.astype(np.float64) * steps).astype(np.float32)
        self.biases[clean] = codes.astype(np.int64)
        return clean

    def _clean(self, name: str) -> str:
        """`conv1.weight_quantized` -> `conv1.weight`, if nothing has that name."""
        wanted = name.removesuffix("_quantized")
        while wanted in self.constants or wanted in self.made:
            wanted += "_"
        return wanted

    def _type(self, call: Call) -> str:
        """Of the codes that a node makes."""
        if call.input(2):
            return self.constants[call.inputs[2]].dtype.name
        import onnx

        said = call.attributes.get("output_dtype", 0)
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(said)).name if said else "uint8"

    def _params(self, call: Call, position: int, kind: str) -> QuantParams:
        """Scale and zero point at these inputs; uint8 as int8, which is 128 less.

        Raises:
            ValueError: they aren't numbers that a scale can be.
        """
        scale = self.constants[call.inputs[position]].astype(np.float64).reshape(-1)
        zero = np.zeros(len(scale), np.int64)
        if call.input(position + 1):
            stored = self.constants[call.inputs[position + 1]].astype(np.int64).reshape(-1)
            zero = np.broadcast_to(stored, scale.shape) if len(stored) == 1 else stored
        if not (np.isfinite(scale).all() and (scale > 0).all()) or len(zero) != len(scale):
            raise ValueError("a scale that isn't above 0")
        shift = 128 if kind == "uint8" else 0
        return QuantParams(tuple(scale.tolist()), tuple((zero - shift).tolist()),
                           "int8" if kind == "uint8" else kind)  # fmt: skip

    def _emit(self, call: Call) -> None:
        self.calls.append(call)
        self.made |= dict.fromkeys(call.outputs, call)

    def _refused(self, call: Call, why: str) -> BadInput:
        kind = call.kind.removeprefix(_MS)
        return BadInput(f"{self.where}: the operation {kind} {why} in '{call.label}'; "
                        "docs/models.md lists those that are")  # fmt: skip


def _along(values: Sequence[float] | Sequence[int], rank: int, axis: int) -> np.ndarray:
    """Numbers per channel, to go with an array."""
    found = np.asarray(values)
    if len(found) == 1:
        return found.reshape(())
    shape = [1] * rank
    shape[axis] = len(found)
    return found.reshape(shape)


def _numbers(codes: np.ndarray, params: QuantParams, axis: int) -> np.ndarray:
    """What codes stand for, float32."""
    shift = 128 if codes.dtype == np.uint8 else 0
    less = codes.astype(np.int64) - shift - _along(params.zero_point, codes.ndim, axis)
    scales = _along(params.scale, codes.ndim, axis).astype(np.float32)
    return np.asarray(less.astype(np.float32) * scales, np.float32)


def _codes(numbers: np.ndarray, params: QuantParams, axis: int, kind: str) -> np.ndarray:
    """The codes of numbers, of a type as numpy calls it."""
    limits, shift = np.iinfo(kind), 128 if kind == "uint8" else 0
    scales = _along(params.scale, numbers.ndim, axis).astype(np.float32)
    whole = np.rint(numbers / scales) + _along(params.zero_point, numbers.ndim, axis) + shift
    return whole.clip(limits.min, limits.max).astype(kind)


def _short(name: str) -> str:
    return name.removesuffix(" in float")[:80]
