"""Core ML's program language (MIL), run with torch: how a package's numbers are checked off a Mac.

An operation whose type is float16 is computed in float32 from float16 values and its result rounded
to float16 once; what lies between dequantize and quantize is one integer kernel, with exact sums
(`_mil_integers`), as on Neural Engines with int8 arithmetic (A17 Pro, M4 and later; other chips
compute it in float16). Core ML's own kernels may accumulate in another order or keep more bits, so
answers agree with a device to rounding, not to the bit. The operations are those that residual
networks use; their meaning is that of coremltools' `converters/mil/mil/ops/defs` (iOS 15 to 17).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeres.errors import BadInput
from edgeres.targets import _mil_integers
from edgeres.targets._mil_graph import batchwise
from edgeres.targets._mil_package import numpy_dtype, printable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from coremltools.converters.mil.mil import Function, Operation, Var

    from edgeres.targets._mil_integers import Kernel


_CHUNK_VALUES = 1 << 20  # of the largest tensor: more falls out of the processor's cache
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
        units: tensors that it reads multiplied by these, while integer kernels count in them.
        finished: tensors that nothing reads after it.
    """

    kernel: Kernel
    constants: dict[str, object]
    sources: dict[str, str | list[str]]
    output: str
    shape: tuple[int, ...]
    half: bool
    rounded: frozenset[str] = frozenset()
    units: Mapping[str, torch.Tensor] = field(default_factory=dict)
    finished: tuple[str, ...] = ()

    def names(self) -> set[str]:
        """Every tensor it reads."""
        return {n for s in self.sources.values() for n in ([s] if isinstance(s, str) else s)}


class Interpreter:
    """A program of one input and one output, which answers and can show its work."""

    stand_in = "interpreted"

    def __init__(self, function: Function, where: str, exact: Container[str] = ()):
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
        self._known: dict[str, torch.Tensor] = {}
        self._units: dict[str, torch.Tensor] = {}
        steps: list[_Step] = []
        largest = math.prod(given.shape)
        together = tuple(given.shape[:1]) == (1,)
        for op in function.operations:
            if op.op_type == "const":
                continue
            step = _prepare(op, self._known, where)
            step = self._counted(op.op_type, step, exact)
            if self._input in step.names() or any(s.output in step.names() for s in steps):
                steps.append(step)
                largest = max(largest, math.prod(step.shape))
                together = together and batchwise(op, self._known)
            else:
                self._known[step.output] = _evaluate(step, self._known, where)
        if not any(s.output == self._output for s in steps):
            raise BadInput(f"{where}: its answer doesn't depend on its input")
        self._steps = _with_lifetimes(steps, {self._output, *self._known})
        self._chunk = max(1, _CHUNK_VALUES // largest) if together else 1

    def _counted(self, kind: str, step: _Step, exact: Container[str]) -> _Step:
        """An operation as it is computed inside an integer kernel, or next to one."""
        units = {argument: self._units[name] for argument, name in step.sources.items()
                 if isinstance(name, str) and name in self._units}  # fmt: skip
        if step.output in exact:
            step = dataclasses.replace(step, half=False)
            found = _mil_integers.counted(kind, step.constants, units)
            if found:
                kernel, self._units[step.output] = found
                constants = {**step.constants, "_unit": found[1]}
                return dataclasses.replace(step, kernel=kernel, constants=constants)
        elif kind == "quantize" and units:
            constants = {**step.constants, "_unit": units["input"]}
            return dataclasses.replace(step, kernel=_mil_integers.quantize, constants=constants)
        elif kind != "quantize":
            rounded = frozenset(name for name in step.names() if name in exact)
            step = dataclasses.replace(step, rounded=rounded)
        units = {name: unit for name, unit in self._units.items() if name in step.names()}
        return dataclasses.replace(step, units=units)

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
        return {n: v * self._units[n] if n in self._units else v
                for n, v in values.items() if n in names and n not in self._known}  # fmt: skip


def _prepare(op: Operation, known: dict[str, torch.Tensor], where: str) -> _Step:
    """Sort an operation's arguments into plain constants and tensors, which may be `known`."""
    kernel = _kernels().get(op.op_type)
    if kernel is None or len(op.outputs) != 1:
        raise BadInput(f"{where}: operation {op.op_type!r} isn't known here, only Core ML on a "
                       "Mac can run it")  # fmt: skip
    constants: dict[str, object] = {}
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


def _constant(var: Var) -> Any:
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
        read = {n: _read(step, n, values[n]) for n in step.names()}
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


def _read(step: _Step, name: str, value: torch.Tensor) -> torch.Tensor:
    value = value * step.units[name] if name in step.units else value
    return value.half().float() if name in step.rounded else value


def _with_lifetimes(steps: list[_Step], needed: set[str]) -> list[_Step]:
    """Say for each step which tensors are no longer needed after it."""
    found: list[_Step] = []
    for step in reversed(steps):
        names = step.names() | {step.output}
        found.append(dataclasses.replace(step, finished=tuple(sorted(names - needed))))
        needed = needed | names
    return found[::-1]


def _kernels() -> Mapping[str, Kernel]:
    from edgeres.targets._mil_kernels import KERNELS

    return KERNELS
