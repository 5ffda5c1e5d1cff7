"""An ExecuTorch program as a `FileGraph`: its XNNPACK delegates and the kernels beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.errors import BadInput, EdgeresError
from edgeres.targets._executorch_xnnpack import Delegate
from edgeres.targets._graph import FileGraph, FileOp, Role
from edgeres.types import QuantParams, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from executorch.exir import schema
    from executorch.exir._serialize._program import PTEFile

_KERNELS: dict[str, Role] = {
    "convolution": "conv", "linear": "linear", "addmm": "linear", "mm": "linear", "add": "add",
    "mul": "mul", "sigmoid": "sigmoid", "cat": "concat",
    "mean": "pool", "avg_pool2d": "pool", "_adaptive_avg_pool2d": "pool",
    "max_pool2d_with_indices": "move", "view_copy": "move", "squeeze_copy": "move",
    "unsqueeze_copy": "move", "expand_copy": "move", "slice_copy": "move", "clone": "move",
    "constant_pad_nd": "move", "relu": "move", "_clone_dim_order": "move",
    "permute_copy": "transpose", "transpose_copy": "transpose", "_to_dim_order_copy": "boundary",
    "quantize_per_tensor": "boundary", "dequantize_per_tensor": "boundary",
    "quantize_per_channel": "boundary", "dequantize_per_channel": "boundary",
}  # fmt: skip
_TYPES = {"FLOAT": "float32", "HALF": "float16", "CHAR": "int8", "BYTE": "uint8"}
_INTEGERS = ("BYTE", "CHAR", "SHORT", "INT", "LONG")
_SINCE_1_0 = ("XNNSin", "XNNCopy", "XNNCos")  # operators that executorch 1.0's schema lacks


def graph(path: Path) -> FileGraph:
    """The whole file.

    Raises:
        BadInput: not an ExecuTorch program that edgeres reads, or a damaged one.
    """
    if not path.is_file():
        raise BadInput(f"{path}: not an ExecuTorch program (a folder)")
    data = path.read_bytes()
    from executorch.exir._serialize._program import deserialize_pte_binary

    try:  # the deserializer asserts and reads past ends; each of its errors means the same
        return _Reader(str(path), deserialize_pte_binary(data)).graph()
    except (EdgeresError, MemoryError):
        raise
    except Exception as error:
        what = type(error).__name__
        raise BadInput(f"{path}: not an ExecuTorch program, or a damaged one ({what})") from error


class _Reader:
    """One program's method `forward`."""

    def __init__(self, where: str, file: PTEFile):
        self.where, self.program = where, file.program
        plans = {plan.name: plan for plan in self.program.execution_plan}
        if "forward" not in plans:
            raise BadInput(f"{where}: has no method 'forward'")
        self.plan = plans["forward"]
        store = file.named_data
        self.named = {
            key: bytes(store.buffers[entry.buffer_index])
            for key, entry in (store.pte_data.items() if store else ())
        }
        self.input = self._only("input", self.plan.inputs)
        self.output = self._only("output", self.plan.outputs)
        self.quantization: dict[str, QuantParams] = {}
        self.versions = {"program": int(self.program.version)}

    def graph(self) -> FileGraph:
        calls = [i.instr_args for chain in self.plan.chains for i in chain.instructions]
        ops: list[FileOp] = []
        partitions = 0
        for call in calls:
            kind = type(call).__name__
            if kind == "DelegateCall":
                ops += self._delegate(call, partitions)
                partitions += 1
            elif kind == "KernelCall":
                ops.append(self._kernel(call))
            elif kind != "FreeCall":
                raise BadInput(f"{self.where}: its operations have branches ({kind}); edgeres "
                               "reads networks without")  # fmt: skip
        newer = any(op.kind in _SINCE_1_0 for op in ops)
        return FileGraph(
            "executorch", tuple(ops), self._spec("input", self.input),
            self._spec("output", self.output), self.quantization, partitions, self._metadata(),
            "" if newer else "ExecuTorch 1.0", self.versions,
        )  # fmt: skip

    def _delegate(self, call: schema.DelegateCall, number: int) -> list[FileOp]:
        delegate = self.plan.delegates[call.delegate_index]
        if delegate.id != "XnnpackBackend":
            raise BadInput(f"{self.where}: delegated to {delegate.id[:80]!r}; edgeres reads "
                           "XnnpackBackend only")  # fmt: skip
        blob = bytes(self.program.backend_delegate_data[delegate.processed.index].data)
        names = [self._name(i) for i in call.args]
        found = Delegate(self.where, blob, self.named, names, ("input", "output"), f"x{number}.")
        self.versions["XNNPACK graph"] = found.version
        self.quantization |= found.quantization()
        return found.ops()

    def _kernel(self, call: schema.KernelCall) -> FileOp:
        """A kernel outside the delegates; its last argument is what it returns."""
        kind = self.plan.operators[call.op_index].name
        base = kind.rsplit("::", 1)[-1]
        role = _KERNELS.get(base, "other")
        output = self._tensors(call.args[-1])[0]
        tensors = [i for a in call.args[:-1] for i in self._tensors(a)]
        returned = self._tensors(call.args[-1])
        stored = [i for i in tensors if self._is_constant(i)]
        data = [i for i in tensors if i not in stored and i not in returned]
        if role == "add" and len(data) != 2:
            role = "other"
        weight = self._weight(base, stored) if role in ("conv", "linear") else None
        types = {self._value(i).scalar_type.name for i in (*data, output)}
        floating = role not in ("move", "transpose", "boundary") and not types <= set(_INTEGERS)
        name = self._name(output)
        return FileOp(
            kind, role, name, tuple(map(self._name, data)), name, floating, weight,
            shape=tuple(self._value(output).sizes),
            constant_bytes=sum(len(self._constant(i)) for i in stored),
        )  # fmt: skip

    def _weight(self, base: str, stored: list[int]) -> np.ndarray | None:
        """The first constant that has a weight's shape, in PyTorch's order."""
        import numpy as np

        for number in stored:
            tensor = self._value(number)
            dtype = _TYPES.get(tensor.scalar_type.name)
            if len(tensor.sizes) in (2, 4) and dtype:
                values = np.frombuffer(self._constant(number), dtype, np.prod(tensor.sizes))
                weight = values.reshape([tensor.sizes[i] for i in tensor.dim_order])
                weight = weight.transpose(np.argsort(tensor.dim_order))
                return weight.T if base in ("addmm", "mm") else weight
        return None

    def _metadata(self) -> dict[str, str]:
        """Methods that only return a text."""
        found = {}
        for plan in self.program.execution_plan:
            values = [plan.values[i].val for i in plan.outputs]
            if len(values) == 1 and type(values[0]).__name__ == "String":
                found[plan.name] = values[0].string_val
        return found

    def _value(self, number: int) -> schema.KernelTypes:
        return self.plan.values[number].val

    def _tensors(self, number: int) -> list[int]:
        value = self._value(number)
        kind = type(value).__name__
        if kind in ("TensorList", "OptionalTensorList"):
            return [i for i in value.items if i >= 0]
        return [number] if kind == "Tensor" else []

    def _is_constant(self, number: int) -> bool:
        tensor = self._value(number)
        return tensor.data_buffer_idx > 0 and tensor.allocation_info is None

    def _constant(self, number: int) -> bytes:
        return bytes(self.program.constant_buffer[self._value(number).data_buffer_idx].storage)

    def _name(self, number: int) -> str:
        return {self.input: "input", self.output: "output"}.get(number, f"v{number}")

    def _only(self, what: str, numbers: list[int]) -> int:
        if len(numbers) != 1 or self._tensors(numbers[0]) != list(numbers):
            raise BadInput(f"{self.where}: not a network of one {what} tensor (it has "
                           f"{len(numbers)} {what}s)")  # fmt: skip
        return numbers[0]

    def _spec(self, name: str, number: int) -> TensorSpec:
        tensor = self._value(number)
        kind, sizes = tensor.scalar_type.name, tuple(tensor.sizes)
        if kind not in _TYPES:
            raise BadInput(f"{self.where}: its {name} is {kind}; edgeres reads image networks")
        layout = "NC"
        if len(sizes) == 4:
            layout = "NHWC" if sizes[3] in (1, 3) and sizes[1] not in (1, 3) else "NCHW"
        quantization = self.quantization.get(name) if kind in _INTEGERS else None
        return TensorSpec(name, sizes, _TYPES[kind], layout, quantization)
