"""Rewrites of an exported ONNX model that keep its numbers and help onnxruntime's optimizer.

Each takes a ModelProto and changes it in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeres.targets._four_bits import FourBits, packed

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from edgeres.types import ScaleTable


def strip_provenance(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes (source paths, stack traces): no secrets, equal bytes anywhere."""
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer,
                 *model.graph.input, *model.graph.output, *model.graph.value_info):  # fmt: skip
        del part.metadata_props[:]
        if part is not model.graph:
            part.doc_string = ""
    del model.graph.value_info[:]


def global_average_pool(model: onnx.ModelProto) -> None:
    """Write the mean over H and W as GlobalAveragePool, which onnxruntime can quantize."""
    import onnx

    constants = {i.name: i for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        axes = sorted(a % 4 for a in onnx.numpy_helper.to_array(constants[node.input[1]]).tolist())
        keeps = all(a.i for a in node.attribute if a.name == "keepdims")
        if axes == [2, 3] and keeps:
            node.op_type = "GlobalAveragePool"
            del node.input[1:]
            del node.attribute[:]
    _drop_unused(model)


def relus_of_codes(model: onnx.ModelProto) -> None:
    """Let what quantizes behind a Relu do its work, or cut its codes off at their zero point.

    With the smallest code as zero point there is nothing to do: none stands for less than zero.
    Elsewhere (what concatenations join has one zero point) a Relu in float would keep onnxruntime
    from computing the layer before it in integers.
    """
    import onnx

    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in list(model.graph.node):
        users = readers.get(node.output[0], [])
        if node.op_type != "Relu" or any(u.op_type != "QuantizeLinear" for u in users):
            continue
        for user in users:
            user.input[0] = node.input[0]
            if constants[user.input[2]] > -128:
                _cut_off(model, user)
        model.graph.node.remove(node)


def _cut_off(model: onnx.ModelProto, quantize: onnx.NodeProto) -> None:
    """Put the zero point in place of each smaller code."""
    import onnx

    codes = quantize.output[0]
    quantize.output[0] = f"{codes}_of_all"
    clip = onnx.helper.make_node("Clip", [f"{codes}_of_all", quantize.input[2]], [codes],
                                 f"{quantize.name}_relu")  # fmt: skip
    model.graph.node.insert([*model.graph.node].index(quantize) + 1, clip)


def unsigned_activations(model: onnx.ModelProto) -> None:
    """Write activations as uint8 (zero point + 128, the same numbers).

    On x86, onnxruntime turns int8 into uint8 only where a tensor has one reader; at a residual fork
    the types then clash and the add and half of the convolutions fall back to float.
    """
    import numpy as np
    import onnx

    constants = {i.name: i for i in model.graph.initializer}
    places = {"QuantizeLinear": 2, "DequantizeLinear": 2, "Clip": 1}
    for node in model.graph.node:
        at = places.get(node.op_type)
        if at is None or node.input[0] in constants:
            continue  # the rest are weights, which stay int8
        name = f"{node.input[at]}_u8"
        if name not in constants:
            zero = onnx.numpy_helper.to_array(constants[node.input[at]]).astype(np.int32) + 128
            constants[name] = onnx.numpy_helper.from_array(zero.astype(np.uint8), name)
            model.graph.initializer.append(constants[name])
        node.input[at] = name
    _drop_unused(model)


def integer_io(model: onnx.ModelProto) -> None:
    """Take and give codes: drop the first QuantizeLinear and the last DequantizeLinear."""
    import onnx

    source, result = model.graph.input[0], model.graph.output[0]
    first = next(n for n in model.graph.node if source.name in n.input)
    last = next(n for n in model.graph.node if result.name in n.output)
    assert first.op_type == "QuantizeLinear" and last.op_type == "DequantizeLinear"
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == first.output[0]:
                node.input[i] = source.name
        for i, name in enumerate(node.output):
            if name == last.input[0]:
                node.output[i] = result.name
    model.graph.node.remove(first)
    model.graph.node.remove(last)
    for value in (source, result):
        value.type.tensor_type.elem_type = onnx.TensorProto.UINT8


def four_bit_weights(model: onnx.ModelProto, scales: ScaleTable) -> None:
    """Store weights of 4 bits, and their zero points, as ONNX's INT4; one scale per channel."""
    constants = {i.name: i for i in model.graph.initializer}
    four = FourBits(scales)
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        weight, scale = (onnx_values(constants[name]) for name in node.input[:2])
        if four.has(scale.reshape(-1)):
            constants[node.input[0]].CopyFrom(_int4(weight, node.input[0]))
            zero = f"{node.input[2]}_{node.input[0]}"
            model.graph.initializer.append(_int4(weight.reshape(len(scale), -1)[:, 0] * 0, zero))
            node.input[2] = zero
    _drop_unused(model)
    _say_int4(model)


def cast_four_bit_weights(model: onnx.ModelProto, scales: ScaleTable) -> None:
    """Store weights of 4 bits of integer operators as INT4, and a Cast to int8 before each.

    A session casts once, when it starts, if its optimizer is on; else each time.
    """
    import onnx

    places = {"QLinearConv": (3, 4), "QGemm": (3, 4)}
    constants = {i.name: i for i in model.graph.initializer}
    four, casts = FourBits(scales), []
    for node in model.graph.node:
        at, of = places.get(node.op_type, (0, 0))
        if at and four.has(onnx_values(constants[node.input[of]]).reshape(-1)):
            name = node.input[at]
            stored = _int4(onnx_values(constants[name]), f"{name}_int4")
            constants[name].CopyFrom(stored)
            casts.append(onnx.helper.make_node(
                "Cast", [stored.name], [name], f"{name}_unpack", to=onnx.TensorProto.INT8
            ))  # fmt: skip
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    _say_int4(model)


def onnx_values(tensor: onnx.TensorProto) -> np.ndarray:
    """A stored tensor's numbers."""
    import onnx

    values: np.ndarray = onnx.numpy_helper.to_array(tensor)
    return values


def _int4(codes: np.ndarray, name: str) -> onnx.TensorProto:
    import onnx

    return onnx.TensorProto(
        name=name, data_type=onnx.TensorProto.INT4, dims=codes.shape, raw_data=packed(codes)
    )


def _say_int4(model: onnx.ModelProto) -> None:
    """Operator set 21 has INT4, and the same operators else."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = 21


def half(model: onnx.ModelProto) -> None:
    """Store weights and compute in float16; the input and the output stay float32."""
    import numpy as np
    import onnx

    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor)
            limit = float(np.finfo(np.float16).max)
            values = values.clip(-limit, limit).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    source, result = model.graph.input[0].name, model.graph.output[0].name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = {source: f"{source}_half", result: f"{result}_half"}.get(name, name)
    to = onnx.TensorProto
    first = onnx.helper.make_node("Cast", [source], [f"{source}_half"], "to_half", to=to.FLOAT16)
    last = onnx.helper.make_node("Cast", [f"{result}_half"], [result], "to_float", to=to.FLOAT)
    model.graph.node.insert(0, first)
    model.graph.node.append(last)


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    for initializer in list(model.graph.initializer):
        if initializer.name not in used:
            model.graph.initializer.remove(initializer)
