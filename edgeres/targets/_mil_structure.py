"""A .mlpackage exactly as stored: each operation in PyTorch's terms, and what is left over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgeres.errors import BadInput
from edgeres.targets import _mil_container as container
from edgeres.targets import _mil_package as packages
from edgeres.targets._mil_blobs import DTYPES, Blobs, value
from edgeres.targets._structure import Details, Operation, Step, Structure, fields_left_over, plain
from edgeres.types import QuantParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from coremltools.proto import MIL_pb2

    from edgeres.targets import Source

# precision -> the types that its computed tensors may have; the first is that of its images
_TYPES = {"fp16": ("float16",), "palettized": ("float16",),
          "int8": ("float32", "float16", "int8", "uint8")}  # fmt: skip
# operation -> its tensors, then its constants; what may be missing is in brackets
_ARGUMENTS = {
    "conv": ("x", "weight [bias] strides pad_type pad dilations groups"),
    "linear": ("x", "weight [bias]"), "relu": ("x", ""), "clip": ("x", "alpha beta"),
    "sigmoid": ("x", ""), "silu": ("x", ""), "add": ("x y", ""), "mul": ("x y", ""),
    "concat": ("values", "axis interleave"), "reduce_mean": ("x", "axes keep_dims"),
    "max_pool": ("x", "kernel_sizes strides pad_type pad ceil_mode"), "reshape": ("x", "shape"),
    "cast": ("x", "dtype"), "quantize": ("input", "scale [zero_point] output_dtype"),
    "dequantize": ("input", "scale [zero_point]"),
}  # fmt: skip
_WEIGHTS = {"const": ("val",),
            "constexpr_affine_dequantize": ("axis", "quantized_data", "scale", "zero_point"),
            "constexpr_lut_to_dense": ("indices", "lut", "shape")}  # fmt: skip
_RENAMED: dict[str, Operation] = {"reduce_mean": "mean", "clip": "relu"}
_CAST_TYPES = {"fp16": "float16", "fp32": "float32"}


def structure(path: Path, source: Source, precision: str, ct: ModuleType) -> Structure:
    """The package's own program.

    Args:
        source: what it must have been written from.
        ct: coremltools.

    Raises:
        BadInput: not a Core ML package, or a damaged one.
    """
    packages.load(path, ct)  # says what is wrong, and holds declared types against computed ones
    spec = packages.specification(path, ct)
    try:
        blobs = Blobs((path / packages.WEIGHTS).read_bytes())
        left_over = [*container.package(path), *container.beyond(path, spec),
                     *container.model(spec, source, precision, ct.proto)]  # fmt: skip
        reader = _Reader(spec.mlProgram, blobs, precision)
        steps = tuple(reader.steps())
        left_over += [*reader.strange, *reader.unused(), *blobs.left_over()]
        (output,) = reader.block.outputs
    except MemoryError:
        raise
    except Exception as error:  # places that lie outside, sizes that don't fit
        said = packages.printable(str(error)) or type(error).__name__
        raise BadInput(f"{path}: a damaged Core ML package ({said}); export it again") from error
    return Structure(steps, reader.input, output, reader.quantization, tuple(left_over))


class _Reader:
    """The one block of operations."""

    def __init__(self, program: MIL_pb2.Program, blobs: Blobs, precision: str):
        (function,) = program.functions.values()
        self.block = function.block_specializations[function.opset]
        (self.input,) = (i.name for i in function.inputs)
        self.blobs, self.precision = blobs, precision
        self.constants: dict[str, Any] = {}
        self.scales: dict[str, QuantParams] = {}  # of weights
        self.quantization: dict[str, QuantParams] = {}
        self.ranks = {i.name: i.type.tensorType.rank for i in function.inputs}
        self.used: set[str] = set()
        self.unpacked: set[str] = set()
        self.strange: list[str] = []

    def steps(self) -> Iterator[Step]:
        for op in self.block.operations:
            name = op.outputs[0].name
            where = f"{op.type[:40]} {packages.printable(name)}"
            if name in self.constants or name in self.ranks:
                self.strange.append(f"{where}: its name is another's too")
            self.strange += [f"{where}: {said}" for said in self._form(op)]
            if op.type in _WEIGHTS:
                self.constants[name] = self._stored(op, name)
                if op.type != "const":
                    self.unpacked.add(name)
                continue
            self.ranks[name] = op.outputs[0].type.tensorType.rank
            step = self._step(op, name, where)
            if op.type == "silu" and step.op != "unknown":  # what coremltools makes of the two
                gate = f"{name} before its product"
                yield dataclasses.replace(step, op="sigmoid", output=gate)
                step = dataclasses.replace(step, op="mul", inputs=(*step.inputs, gate))
            yield step

    def unused(self) -> Iterator[str]:
        for name in sorted(self.constants.keys() - self.used):
            yield f"the constant {packages.printable(name)} is not used"

    def _form(self, op: MIL_pb2.Operation) -> Iterator[str]:
        """What an operation has that isn't read here."""
        yield from fields_left_over(op, ("type", "inputs", "outputs", "attributes"))
        if len(op.outputs) != 1:
            yield f"it has {len(op.outputs)} outputs"
        yield from fields_left_over(op.outputs[0], ("name", "type"))
        allowed = {"name", *_WEIGHTS.get(op.type, ())}
        for key in sorted(op.attributes.keys() ^ allowed):
            yield f"the attribute {key[:40]!r} isn't expected, or is missing"
        label, last = value(op.attributes["name"]), op.outputs[0].name in self.block.outputs
        if label != op.outputs[0].name and not (last and plain(label)):
            yield "its name isn't its output's"
        if op.type not in _WEIGHTS:
            dtype = DTYPES.get(op.outputs[0].type.tensorType.dataType)
            image = dtype == "float32"  # only images are
            if image or dtype not in _TYPES[self.precision]:
                yield f"it is of type {dtype}"

    def _stored(self, op: MIL_pb2.Operation, name: str) -> Any:
        """A constant, or a weight that is unpacked from one."""
        values = {key: value(op.attributes[key], self.blobs) for key in _WEIGHTS[op.type]}
        if op.type == "const":
            if op.outputs[0].type != op.attributes["val"].type:
                self.strange.append(f"const {name}: its type isn't its value's")
            return values["val"]
        if op.type == "constexpr_lut_to_dense":
            return self._from_table(name, **values)
        codes, scale, zero = (values[k] for k in ("quantized_data", "scale", "zero_point"))
        if values["axis"] != 0 or zero.any() or zero.shape != scale.shape:
            self.strange.append(f"{op.type} {name}: its zero point isn't 0, or its axis isn't")
        self.scales[name] = _params(scale, zero, "int8", 0)
        return codes

    def _from_table(
        self, name: str, indices: np.ndarray, lut: np.ndarray, shape: np.ndarray
    ) -> np.ndarray:
        import numpy as np

        bits, count = int(math.log2(len(lut))), math.prod(shape.tolist())
        unpacked = np.unpackbits(indices, bitorder="little")
        if len(lut) != 1 << bits or unpacked[count * bits :].any() or (np.diff(lut) < 0).any():
            self.strange.append(f"the table of {name} isn't in order, or some of it isn't used")
        rows = unpacked[: count * bits].reshape(count, bits)
        return lut[rows @ (1 << np.arange(bits))].reshape(shape)

    def _step(self, op: MIL_pb2.Operation, name: str, where: str) -> Step:
        tensors, constants = (part.split() for part in _ARGUMENTS.get(op.type, ("", "")))
        given = {}
        for key, argument in op.inputs.items():
            for said in fields_left_over(argument, ("arguments",)):
                self.strange.append(f"{where}: {said}")
            given[key] = [a.name for a in argument.arguments]
        self.used |= {n for names in given.values() for n in names}
        data = tuple(n for names in given.values() for n in names if n not in self.constants)
        wanted = {key.strip("[]") for key in constants}
        needed = {key for key in constants if not key.startswith("[")}
        problem = ""
        if op.type not in _ARGUMENTS:
            problem = "the network has no such operation"
        elif not {*tensors, *needed} <= given.keys() <= {*tensors, *wanted}:
            problem = f"has the arguments {', '.join(sorted(given))[:200]}"
        elif any(len(names) != 1 for key, names in given.items() if key != "values"):
            problem = "has lists as arguments"
        elif any(given[key][0] not in self.constants for key in wanted & given.keys()):
            problem = "what should be a constant is computed"
        elif any(n in self.unpacked for k, ns in given.items() if k != "weight" for n in ns):
            problem = "reads an unpacked constant where a plain one belongs"
        elif op.type == "mul" and self._is_minus_one(given["y"][0]):
            return Step("neg", where, tuple(given["x"]), name)
        elif any(n in self.constants for key in tensors for n in given[key]):
            problem = "computes from a constant"
        elif op.type in ("add", "mul") and len({self.ranks[n] for n in data}) > 1:
            problem = "repeats a tensor along another axis"  # (1, C) meets a map's last one
        if problem:
            self.strange.append(f"{where}: {problem}")
            return Step("unknown", where, data, name)
        stored = {key: self.constants[given[key][0]] for key in wanted & given.keys()}
        data = tuple(n for key in tensors for n in given[key])
        kind: Operation = _RENAMED.get(op.type, op.type)
        details = self._details(op.type, stored, data, name, where)
        if kind == "relu":
            details |= {"most": float(stored["beta"]) if op.type == "clip" else math.inf}
            if op.type == "clip" and stored["alpha"] != 0:
                self.strange.append(f"{where}: cuts its output off below elsewhere than at 0")
        if "weight" in stored:
            details |= {"weight": stored["weight"], "bias": stored.get("bias"),
                        "weight_quantization": self.scales.get(given["weight"][0])}  # fmt: skip
        return Step(kind, where, data, name, **details)

    def _is_minus_one(self, name: str) -> bool:
        import numpy as np

        return name in self.constants and bool(np.all(self.constants[name] == -1))

    def _details(
        self, kind: str, stored: dict[str, Any], data: tuple[str, ...], name: str, where: str
    ) -> Details:
        found: Details = {}
        if kind in ("conv", "max_pool"):
            found = self._window(stored, where)
        if kind in ("reshape", "max_pool") and data[0] in self.quantization:
            self.quantization[name] = self.quantization[data[0]]
        if kind == "concat" and (stored["axis"] % 4 != 1 or stored["interleave"]
                                 or {self.ranks[n] for n in data} != {4}):  # fmt: skip
            self.strange.append(f"{where}: joins along the axis {stored['axis']}, or in turns")
        if kind == "reshape":
            return {"shape": tuple(stored["shape"].tolist())}
        if kind == "cast":
            return {"dtype": _CAST_TYPES.get(stored["dtype"], stored["dtype"])}
        if kind == "reduce_mean" and sorted(a % 4 for a in stored["axes"].tolist()) != [2, 3]:
            self.strange.append(f"{where}: averages over the axes {stored['axes'].tolist()}")
        if kind in ("quantize", "dequantize"):
            known = self.quantization.get(data[0])
            dtype = stored.get("output_dtype") or (known.dtype if known else "")
            params = _params(stored["scale"], stored.get("zero_point", 0), dtype)
            if kind == "quantize":
                self.quantization[name] = params
            elif params != known:
                self.strange.append(f"{where}: has another scale than what it reads")
        return found

    def _window(self, stored: dict[str, Any], where: str) -> Details:
        pads, kind = stored["pad"].tolist(), stored["pad_type"]
        if stored.get("ceil_mode"):
            self.strange.append(f"{where}: rounds its output's size up")
        if kind not in ("valid", "custom", "same") or (kind != "custom" and any(pads)):
            self.strange.append(f"{where}: its padding is {kind[:20]} {pads}")
        (top, bottom), (left, right) = pads[:2], pads[2:]
        found: Details = {"stride": _pair(stored["strides"]),
                 "padding": None if kind == "same" else (top, left, bottom, right)}  # fmt: skip
        if "weight" in stored:
            groups = int(stored["groups"])
            return {**found, "dilation": _pair(stored["dilations"]), "groups": groups,
                    "kernel": stored["weight"].shape[2:]}  # fmt: skip
        return {**found, "kernel": _pair(stored["kernel_sizes"])}


def _pair(stored: np.ndarray) -> tuple[int, int]:
    height, width = stored.tolist()
    return height, width


def _params(
    scale: npt.ArrayLike, zero: npt.ArrayLike, dtype: str, axis: int | None = None
) -> QuantParams:
    import numpy as np

    scales = tuple(float(s) for s in np.reshape(scale, -1))
    zeros = tuple(int(z) for z in np.reshape(zero, -1))
    return QuantParams(scales, zeros, dtype, axis)
