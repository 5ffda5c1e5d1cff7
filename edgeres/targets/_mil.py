"""Core ML's program language (MIL), run with torch: how a package's numbers are checked off a Mac.

An operation whose type is float16 is computed in float32 from float16 values and its result rounded
to float16 once; what lies between dequantize and quantize is one integer kernel and rounded to its
codes only, as on Neural Engines with int8 arithmetic (A17 Pro, M4 and later; other chips compute it
in float16). Core ML's own kernels may accumulate in another order or keep more bits, so answers
agree with a device to rounding, not to the bit. The operations are those that residual networks
use; their meaning is that of coremltools' `converters/mil/mil/ops/defs` (iOS 15 to 17).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeres.errors import BadInput
from edgeres.targets._mil_package import printable

if TYPE_CHECKING:
    import numpy as np
    import torch

    Arguments = Mapping[str, Any]  # an operation's arguments by name: tensors and plain constants
    Kernel = Callable[[Arguments], torch.Tensor]

_CHUNK_VALUES = 1 << 20  # of the largest tensor: more falls out of the processor's cache
# operation -> its argument that names axes
_AXES = {"transpose": "perm", "reduce_mean": "axes", "squeeze": "axes",
         "expand_dims": "axes", "concat": "axis"}  # fmt: skip
_EXACT = ("relu", "reshape", "squeeze", "expand_dims", "transpose", "concat", "max_pool", "pad",
          "identity")  # fmt: skip


@dataclass(frozen=True)
class _Step:
    """One operation, ready to run.

    Attributes:
        constants: arguments that never change.
        sources: argument -> the tensor that it is, or the tensors of a list.
        half: its result is rounded to float16.
        rounded: tensors that it reads rounded to float16, while integer kernels read them exact.
        finished: tensors that nothing reads after it.
    """

    kernel: Kernel
    constants: dict[str, Any]
    sources: dict[str, str | list[str]]
    output: str
    shape: tuple[int, ...]
    half: bool
    rounded: frozenset[str] = frozenset()
    finished: tuple[str, ...] = ()

    def names(self) -> set[str]:
        """Every tensor it reads."""
        return {n for s in self.sources.values() for n in ([s] if isinstance(s, str) else s)}


class Interpreter:
    """A program of one input and one output, which answers and can show its work."""

    stand_in = "interpreted"

    def __init__(self, function: Any, where: str, exact: Container[str] = ()):
        """Prepare a program; what depends on constants only is computed once.

        Args:
            function: coremltools' `Function` with known sizes, batch 1.
            where: names the file in messages.
            exact: values that integer kernels don't round to float16; others read them rounded.

        Raises:
            BadInput: the program holds an operation that isn't known here; names it.
        """
        ((self._input, given),), (output,) = function.inputs.items(), function.outputs
        self._where, self._output, self._dtype = where, output.name, numpy_dtype(output)
        self._known: dict[str, Any] = {}
        steps: list[_Step] = []
        largest = math.prod(given.shape)
        batchwise = tuple(given.shape[:1]) == (1,)
        for op in function.operations:
            if op.op_type == "const":
                continue
            step = _prepare(op, self._known, where)
            if step.output in exact:
                step = dataclasses.replace(step, half=False)
            elif op.op_type != "quantize":
                rounded = frozenset(name for name in step.names() if name in exact)
                step = dataclasses.replace(step, rounded=rounded)
            if self._input in step.names() or any(s.output in step.names() for s in steps):
                steps.append(step)
                largest = max(largest, math.prod(step.shape))
                batchwise = batchwise and _batchwise(op, self._known)
            else:
                self._known[step.output] = _evaluate(step, self._known, where)
        if not any(s.output == self._output for s in steps):
            raise BadInput(f"{where}: its answer doesn't depend on its input")
        self._steps = _with_lifetimes(steps, {self._output, *self._known})
        self._chunk = max(1, _CHUNK_VALUES // largest) if batchwise else 1

    def run(self, images: np.ndarray) -> np.ndarray:
        """Encoded images (N, C, H, W) -> the program's answers (N, classes), in its own type."""
        return self.trace(images, {self._output})[self._output].astype(self._dtype)

    def trace(self, images: np.ndarray, names: Container[str]) -> dict[str, np.ndarray]:
        """Encoded images -> tensors by name, the batch first; floats as float32, codes as stored.

        Args:
            names: the tensors to keep; what isn't there is left out.
        """
        import numpy as np
        import torch

        parts: dict[str, list[np.ndarray]] = {}
        with torch.inference_mode():
            for start in range(0, len(images), self._chunk):
                chunk = torch.from_numpy(images[start : start + self._chunk])
                for name, value in self._evaluated(chunk, names).items():
                    parts.setdefault(name, []).append(value.numpy())
        return {name: np.concatenate(found) for name, found in parts.items()}

    def _evaluated(self, images: torch.Tensor, names: Container[str]) -> dict[str, torch.Tensor]:
        values = dict(self._known)
        values[self._input] = images.float() if images.is_floating_point() else images
        for step in self._steps:
            values[step.output] = _evaluate(step, values, self._where)
            for name in step.finished:
                if name not in names:
                    del values[name]
        return {n: v for n, v in values.items() if n in names and n not in self._known}


def _prepare(op: Any, known: dict[str, Any], where: str) -> _Step:
    """Sort an operation's arguments into plain constants and tensors, which may be `known`."""
    kernel = _kernels().get(op.op_type)
    if kernel is None or len(op.outputs) != 1:
        raise BadInput(f"{where}: operation {op.op_type!r} isn't known here, only Core ML on a "
                       "Mac can run it")  # fmt: skip
    constants: dict[str, Any] = {}
    sources: dict[str, str | list[str]] = {}
    for name, argument in op.inputs.items():
        if isinstance(argument, (list, tuple)):
            known.update({v.name: _constant(v) for v in argument if v.val is not None})
            sources[name] = [v.name for v in argument]
        elif argument is not None and argument.val is not None:
            constants[name] = _constant(argument)
        elif argument is not None:
            sources[name] = argument.name
    output = op.outputs[0]
    shape = tuple(int(d) for d in output.shape)
    half = numpy_dtype(output) == "float16" and op.op_type not in _EXACT
    return _Step(kernel, {**constants, "_shape": shape}, sources, output.name, shape, half)


def _constant(var: Any) -> Any:
    """A constant as kernels take it: float32 or code tensors, plain numbers, lists, strings."""
    import numpy as np
    import torch

    value = var.val
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        return value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    if value.dtype.kind == "f":
        return torch.from_numpy(value.astype(np.float32))
    return torch.from_numpy(value.copy()) if value.dtype.itemsize == 1 else value.tolist()


def _evaluate(step: _Step, values: Mapping[str, torch.Tensor], where: str) -> torch.Tensor:
    try:
        read = {n: values[n].half().float() if n in step.rounded else values[n]
                for n in step.names()}  # fmt: skip
        tensors = {name: read[s] if isinstance(s, str) else [read[n] for n in s]
                   for name, s in step.sources.items()}  # fmt: skip
        result = step.kernel({**step.constants, **tensors})
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        said = printable(str(error).split("\n")[0])
        raise BadInput(f"{where}: operation {step.output!r} can't be computed ({said})") from error
    if tuple(result.shape[1:]) != step.shape[1:]:
        raise BadInput(f"{where}: operation {step.output!r} gives {tuple(result.shape[1:])}, "
                       f"but the program declares {step.shape[1:]}")  # fmt: skip
    return result.half().float() if step.half else result


def _with_lifetimes(steps: list[_Step], needed: set[str]) -> list[_Step]:
    """Say for each step which tensors are no longer needed after it."""
    found: list[_Step] = []
    for step in reversed(steps):
        names = step.names() | {step.output}
        found.append(dataclasses.replace(step, finished=tuple(sorted(names - needed))))
        needed = needed | names
    return found[::-1]


def _batchwise(op: Any, known: Mapping[str, Any]) -> bool:
    """Whether an operation treats the images of a batch one by one (then many run at once)."""
    output = op.outputs[0]
    arguments = [
        v for a in op.inputs.values() for v in (a if isinstance(a, (list, tuple)) else [a])
    ]
    data = [v for v in arguments if v is not None and v.val is None and v.name not in known]
    if any(tuple(v.shape[:1]) != (1,) for v in (output, *data)):
        return False
    if len({len(v.shape) for v in data}) != 1:
        return False
    if op.op_type in _AXES:
        axes = op.inputs.get(_AXES[op.op_type])
        rank = max(len(output.shape), len(data[0].shape))
        listed = [] if axes is None else [a % rank for a in _integers(axes.val)]
        return listed[0] == 0 if op.op_type == "transpose" else bool(listed) and 0 not in listed
    if op.op_type == "pad":
        pads = _integers(op.inputs["pad"].val)
        return len(pads) < 2 * len(output.shape) or not any(pads[:2])
    if op.op_type == "matmul":
        return data == [op.inputs["x"]] and not op.inputs["transpose_x"].val
    return True


def _integers(value: Any) -> list[int]:
    import numpy as np

    return [int(v) for v in np.reshape(value, -1)]


def numpy_dtype(var: Any) -> str:
    """The type of a coremltools `Var`: `fp16` -> `float16`; integers have numpy's names already."""
    name = str(var.dtype.__type_info__().name)
    return {"fp16": "float16", "fp32": "float32"}.get(name, name)


def _kernels() -> Mapping[str, Kernel]:
    from edgeres.targets._mil_kernels import KERNELS

    return KERNELS
