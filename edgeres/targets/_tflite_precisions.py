"""The precisions that litert-torch doesn't write, or not rightly, by itself.

fp16 and dynamic are made by ai-edge-quantizer from the float file; int16x8 is the integer file with
the places mended that the converter gets wrong; int4 is the int8 one with half of some bytes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from edgeres.errors import BadInput
from edgeres.network import tflite_file as file
from edgeres.targets._four_bits import FourBits, packed

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema
    from torch.fx import GraphModule

    from edgeres.types import ScaleTable

_INT32, _INT64, _INT4 = 2, 4, 17  # TensorType
_CHANNELS_FIRST, _CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def half_weights(data: bytes) -> schema.ModelT:
    """float16 weights that the runtime unpacks to float32 while loading (or keeps, on a GPU)."""
    from ai_edge_quantizer import qtyping  # type: ignore[import-untyped]

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    return _quantized(data, [("*", config, "float_casting")], {"DEQUANTIZE": 3})


def integer_weights(data: bytes) -> schema.ModelT:
    """int8 weights, each layer's input quantized while it runs; activations stay float32.

    Convolutions have a scale per channel, the linear layer has one: a scale per channel there needs
    TensorFlow Lite 2.17, and older runtimes would compute with the first one only.
    """
    from ai_edge_quantizer import qtyping  # type: ignore[import-untyped]

    def config(granularity: qtyping.QuantGranularity) -> qtyping.OpQuantizationConfig:
        weights = qtyping.TensorQuantizationConfig(8, symmetric=True, granularity=granularity)
        return qtyping.OpQuantizationConfig(
            weight_tensor_config=weights,
            compute_precision=qtyping.ComputePrecision.INTEGER,
            explicit_dequantize=False,
        )

    minmax = "min_max_uniform_quantize"
    rules = [
        ("CONV_2D", config(qtyping.QuantGranularity.CHANNELWISE), minmax),
        ("FULLY_CONNECTED", config(qtyping.QuantGranularity.TENSORWISE), minmax),
    ]
    return _quantized(data, rules, {"CONV_2D": 5})


def _quantized(
    data: bytes,
    rules: list[tuple[str, object, str]],
    versions: dict[str, int],
) -> schema.ModelT:
    """Apply rules (operator, configuration, algorithm) with ai-edge-quantizer.

    It leaves the operators' versions as they were; with `versions` an old runtime refuses a file
    that it would misread.
    """
    from ai_edge_quantizer import quantizer  # type: ignore[import-untyped]

    worker = quantizer.Quantizer(bytearray(data))
    for operation, config, algorithm in rules:
        worker.update_quantization_recipe(
            ".*", operation_name=operation, op_config=config, algorithm_key=algorithm
        )
    model = file.unpack(bytes(worker.quantize().quantized_model))
    for code in model.operatorCodes:
        code.version = versions.get(file.code_kind(code), code.version)
    return model


def pad_before_pool(graph: GraphModule) -> None:
    """Give the max pool's padding an operation of its own, in zeros (exact after a ReLU).

    The converter pads with the smallest value, and has no int16 operation for that.

    Raises:
        BadInput: something else than a ReLU is before a padded max pool.
    """
    import torch

    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if node.target is not aten.max_pool2d.default:
            continue
        given: Any = [*node.args, *(node.args[1], (0, 0))[len(node.args) - 2 :]]  # stride, padding
        real, kernel, stride, (high, wide), *rest = given
        if not (high or wide):
            continue
        codes = real.args[0]
        if not _not_negative(codes.args[0]):
            raise BadInput("int16x8 has no padding for a max pool behind anything but a ReLU; use "
                           "tflite-int8, or put a ReLU before it")  # fmt: skip
        with graph.graph.inserting_before(node):
            padded = graph.graph.call_function(
                aten.pad.default, (real, [wide, wide, high, high], "constant", 0.0)
            )
            quantize = (padded, *codes.args[1:])
            again = graph.graph.call_function(codes.target, quantize, codes.kwargs)
            real = graph.graph.call_function(real.target, (again, *real.args[1:]), real.kwargs)
        node.args = (real, kernel, stride, *([(0, 0), *rest] if rest else []))
    graph.recompile()


def _not_negative(node: Any) -> bool:
    """Whether a value is a ReLU's, perhaps moved."""
    import torch

    aten, q = torch.ops.aten, torch.ops.quantized_decomposed
    moving = (aten.max_pool2d.default, q.quantize_per_tensor.default,
              q.dequantize_per_tensor.default)  # fmt: skip
    while node.target in moving:
        node = node.args[0]
    return node.target in (aten.relu.default, aten.relu_.default)


def mend_int16(model: schema.ModelT) -> None:
    """Make a converted int16x8 file right, and one that runtimes since 2.4 take; in place.

    The converter writes int32 biases but not the field that says so, and the kernels read them as
    int64: wrong numbers, from beyond the buffer. As int64 they need no such field. Its additions
    claim power-of-two scales, which they haven't.
    """
    import numpy as np

    graph = model.subgraphs[0]
    for op in graph.operators:
        kind = file.kind(model, op)
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            bias = graph.tensors[op.inputs[2]]
            if bias.type == _INT32:
                stored = file.constant(model, bias)
                assert stored is not None
                codes = stored.view(np.int32).astype(np.int64)
                bias.type, bias.buffer = _INT64, file.add_buffer(model, codes.tobytes())
        elif kind == "ADD":
            op.builtinOptions.potScaleInt16 = False
    _pad_channels_last(model, graph)
    versions = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 7, "ADD": 3}
    for code in model.operatorCodes:
        code.version = versions.get(file.code_kind(code), code.version)


def four_bit_weights(model: schema.ModelT, scales: ScaleTable) -> None:
    """Store weights of 4 bits as INT4, in place.

    LiteRT's own kernels and TFLite Micro's know them, of convolutions from TensorFlow Lite 2.11 on.
    """
    import numpy as np

    four = FourBits(scales)
    for tensor in model.subgraphs[0].tensors:
        stored, q = file.constant(model, tensor), tensor.quantization
        scale = q.scale if q is not None else None
        if stored is not None and scale is not None and four.has(scale):
            codes = np.frombuffer(stored.tobytes(), np.int8)
            tensor.type, tensor.buffer = _INT4, file.add_buffer(model, packed(codes))
    versions = {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 7, "FULLY_CONNECTED": 10}
    for code in model.operatorCodes:
        code.version = versions.get(file.code_kind(code), code.version)


def _pad_channels_last(model: schema.ModelT, graph: schema.SubGraphT) -> None:
    """TRANSPOSE, PAD, TRANSPOSE back -> one PAD with its amounts in the other order."""
    import numpy as np

    def only(ops: list[schema.OperatorT], kind: str) -> schema.OperatorT | None:
        return ops[0] if len(ops) == 1 and file.kind(model, ops[0]) == kind else None

    def table(op: schema.OperatorT) -> list[int]:
        amounts = file.constant(model, graph.tensors[op.inputs[1]])
        assert amounts is not None
        return amounts.view(np.int32).tolist()

    for pad in [op for op in graph.operators if file.kind(model, op) == "PAD"]:
        before = only([op for op in graph.operators if pad.inputs[0] in op.outputs], "TRANSPOSE")
        after = only([op for op in graph.operators if pad.outputs[0] in op.inputs], "TRANSPOSE")
        if before is None or after is None:
            continue
        if table(before) != _CHANNELS_FIRST or table(after) != _CHANNELS_LAST:
            continue
        pairs = np.array(table(pad), np.int32).reshape(4, 2)[_CHANNELS_LAST]
        amounts = copy.copy(graph.tensors[pad.inputs[1]])  # others may pad by that one too
        amounts.buffer = file.add_buffer(model, pairs.tobytes())
        graph.tensors.append(amounts)
        pad.inputs = np.array([before.inputs[0], len(graph.tensors) - 1], np.int32)
        pad.outputs = after.outputs
        graph.operators = [op for op in graph.operators if op is not before and op is not after]
