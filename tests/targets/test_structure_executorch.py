"""An ExecuTorch program that isn't exactly the network is found, by name."""

from __future__ import annotations

import copy
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeres.errors import BadInput
from edgeres.models.resnet import fold_batchnorm
from edgeres.targets import Source, executorch, scales_for
from edgeres.targets import _executorch_xnnpack as xnnpack
from edgeres.verification.structure import mismatches

NOTES = {"edgeres.version": "0.1", "edgeres.labels": "a\nb"}
_NONE = 0xFFFFFFFF


@pytest.fixture(scope="module")
def exported(quantized: tuple, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    model, folded, table = quantized
    found = {}
    for precision in executorch.PRECISIONS:
        integer = precision == "int8"
        scales = scales_for("executorch-int8", table) if integer else None
        source = Source(folded if integer else fold_batchnorm(model), scales, NOTES)
        path = tmp_path_factory.mktemp(precision) / "network.pte"
        executorch.export(source, precision, path)
        found[precision] = (path, source)
    return found


def problems(path: Path, source: Source, precision: str) -> tuple[str, ...]:
    stored = executorch.structure(path, source, precision)
    return mismatches(stored, source.model, source.scales, precision)


@pytest.fixture
def changed(exported: dict, tmp_path: Path) -> Callable[..., str]:
    """Apply a change to a program's file and its graph, and say what is found then."""

    def change(precision: str, edit: Callable[[Any, Any], None]) -> str:
        from executorch.exir._serialize import _program as serialization

        whole, source = exported[precision]
        file = serialization.deserialize_pte_binary(whole.read_bytes())
        (delegate,) = file.program.backend_delegate_data
        graph, _ = xnnpack._decoded(bytes(delegate.data))
        edit(file, graph)
        delegate.data = xnnpack.encoded(graph)
        path = tmp_path / "network.pte"
        path.write_bytes(
            bytes(serialization.serialize_pte_binary(file, extract_delegate_segments=True))
        )
        try:
            return "\n".join(problems(path, source, precision))
        except BadInput as error:
            return str(error)

    return change


@pytest.mark.parametrize("precision", executorch.PRECISIONS)
def test_untouched(exported: dict, precision: str) -> None:
    path, source = exported[precision]
    assert len(executorch.structure(path, source, precision).steps) > 12
    assert not problems(path, source, precision)


def find(graph: Any, kind: str, nth: int = 0) -> Any:
    return [n for n in graph["xnodes"] if n["xnode_union_type"] == kind][nth]


def value(graph: Any, number: int) -> Any:
    unions = (v["xvalue_union"] for v in graph["xvalues"])
    return next(u for u in unions if u.get("tensor_value", u)["id_out"] == number)


def tensor(graph: Any, number: int) -> Any:
    found = value(graph, number)
    return found.get("tensor_value", found)


def sets(kind: str, nth: int = 0, **fields: Any) -> Callable[[Any, Any], None]:
    return lambda file, graph: find(graph, kind, nth)["xnode_union"].update(fields)


def another(graph: Any, number: int) -> int:
    """A tensor like that one."""
    wrapped = next(v for v in graph["xvalues"] if v["xvalue_union"].get(
        "tensor_value", v["xvalue_union"])["id_out"] == number)  # fmt: skip
    twin = copy.deepcopy(wrapped)
    plain = twin["xvalue_union"].get("tensor_value", twin["xvalue_union"])
    new = len(graph["xvalues"])
    plain.update(id_out=new, external_id=_NONE, flags=0)
    graph["xvalues"].append(twin)
    return new


def overrules(file: Any, graph: Any) -> None:
    """The answer also depends on what is behind the linear layer."""
    last = find(graph, "XNNFullyConnected")["xnode_union"]
    new, old = another(graph, last["output_id"]), last["output_id"]
    last["output_id"] = new
    node = copy.deepcopy(find(graph, "XNNAdd"))
    node.pop("output_min_max", None)
    node["xnode_union"].update(input1_id=new, input2_id=new, output_id=old)
    at = graph["xnodes"].index(find(graph, "XNNFullyConnected")) + 1
    graph["xnodes"].insert(at, node)


def unused(file: Any, graph: Any) -> None:
    node = copy.deepcopy(find(graph, "XNNAdd"))
    node["xnode_union"]["output_id"] = another(graph, node["xnode_union"]["output_id"])
    graph["xnodes"].append(node)


def spare_tensor(file: Any, graph: Any) -> None:
    another(graph, find(graph, "XNNAdd")["xnode_union"]["output_id"])


def clamps(low: int, high: int) -> Callable[[Any, Any], None]:
    bounds = {"output_min": low, "output_max": high}
    return lambda file, graph: find(graph, "XNNConv2d").update(output_min_max=bounds)


def no_relu(file: Any, graph: Any) -> None:
    del find(graph, "XNNConv2d")["output_min_max"]


def more_relu(file: Any, graph: Any) -> None:
    at = find(graph, "XNNFullyConnected")
    at["output_min_max"] = {"output_min": 0, "output_max": 0x7F800000}


def turns(file: Any, graph: Any) -> None:
    """The picture is turned: height and width change places."""
    find(graph, "XNNStaticTranspose")["xnode_union"]["perm"] = [0, 3, 2, 1]


def no_transpose(file: Any, graph: Any) -> None:
    """Channels first where channels last are read."""
    node = find(graph, "XNNStaticTranspose")
    graph["xnodes"].remove(node)
    find(graph, "XNNConv2d")["xnode_union"]["input1_id"] = node["xnode_union"]["input_id"]


def swapped_inputs(file: Any, graph: Any) -> None:
    node = find(graph, "XNNConv2d", 2)["xnode_union"]
    node["input1_id"] = find(graph, "XNNConv2d", 0)["xnode_union"]["output_id"]


def other_shape(file: Any, graph: Any) -> None:
    tensor(graph, find(graph, "XNNConv2d")["xnode_union"]["output_id"])["dims"][1] = 8


def float_island(file: Any, graph: Any) -> None:
    """To another type and back, in front of the second convolution."""
    conv = find(graph, "XNNConv2d", 1)["xnode_union"]
    read, codes = conv["input1_id"], "quant_params" in value(graph, conv["input1_id"])
    there, back = another(graph, read), another(graph, read)
    dtype = "xnn_datatype_fp32" if codes else "xnn_datatype_fp16"
    wrapped = graph["xvalues"][there]
    wrapped["xvalue_union_type"] = "XNNTensorValue"
    wrapped["xvalue_union"] = {**tensor(graph, there), "datatype": dtype}
    at = graph["xnodes"].index(find(graph, "XNNConv2d", 1))
    for source, output in ((there, back), (read, there)):
        node = {"xnode_union_type": "XNNConvert", "debug_handle": 1,
                "xnode_union": {"input_id": source, "output_id": output, "flags": 0}}  # fmt: skip
        graph["xnodes"].insert(at, node)
    conv["input1_id"] = back


def bias(file: Any, graph: Any, change: Callable[[np.ndarray], Any]) -> None:
    number = find(graph, "XNNConv2d", 1)["xnode_union"]["bias_id"]
    place = graph["constant_data"][tensor(graph, number)["constant_buffer_idx"]]
    at = file.named_data.pte_data[place["named_key"]].buffer_index
    dtype = np.int32 if "qcint32" in tensor(graph, number)["datatype"] else np.float32
    stored = np.frombuffer(bytes(file.named_data.buffers[at]), dtype).copy()
    stored[5] = change(stored[5])
    file.named_data.buffers[at] = stored.tobytes()


def step(stored: Any) -> Any:
    return stored + 1 if stored.dtype.kind == "i" else np.nextafter(stored, np.float32(9e9))


def method(file: Any, graph: Any) -> None:
    plan = copy.deepcopy(file.program.execution_plan[0])
    plan.name = "forward2"
    file.program.execution_plan.append(plan)


def doubled(file: Any, graph: Any) -> None:
    file.program.execution_plan.append(copy.deepcopy(file.program.execution_plan[0]))


def plan(file: Any, name: str) -> Any:
    return next(p for p in file.program.execution_plan if p.name == name)


def second_output(file: Any, graph: Any) -> None:
    plan(file, "forward").outputs.append(0)


def twice(file: Any, graph: Any) -> None:
    calls = plan(file, "forward").chains[0].instructions
    calls.append(copy.deepcopy(calls[0]))


def note(file: Any, graph: Any) -> None:
    plan(file, "edgeres.labels").values[0].val.string_val = "b\na"


def new_note(file: Any, graph: Any) -> None:
    more = copy.deepcopy(plan(file, "edgeres.labels"))
    more.name = "classes"
    file.program.execution_plan.append(more)


def no_note(file: Any, graph: Any) -> None:
    file.program.execution_plan.remove(plan(file, "edgeres.labels"))


def data(file: Any, graph: Any) -> None:
    file.named_data.pte_data["more"] = copy.deepcopy(next(iter(file.named_data.pte_data.values())))


def overlapping(file: Any, graph: Any) -> None:
    plan(file, "forward").values[1].val.allocation_info.memory_offset_low = 0


@pytest.mark.parametrize("precision", executorch.PRECISIONS)
@pytest.mark.parametrize(("edit", "named"), [
    (overrules, "no add"), (unused, "nothing reads"), (spare_tensor, "is not used"),
    (sets("XNNConv2d", subsampling_width=2), "stride"),
    (sets("XNNConv2d", padding_top=0, padding_bottom=2), "padding"),
    (sets("XNNConv2d", padding_right=2), "output is"),
    (sets("XNNConv2d", dilation_height=2), "dilation"), (sets("XNNConv2d", 1, groups=2), "groups"),
    (sets("XNNConv2d", 1, flags=4), "flags"), (sets("XNNConv2d", adjustment_width=1), "field"),
    (sets("XNNConv2d", 1, bias_id=_NONE), "bias of channel"),
    (sets("XNNGlobalAvgPooling2d", flags=0), "flags"),
    (sets("XNNFullyConnected", flags=1), "flags"), (more_relu, "no|ReLU"),
    (clamps(0, 0x40C00000), "its ReLU ends elsewhere"), (clamps(0xBF800000, 0x7F800000), "cuts"),
    (turns, "turns the axes"), (no_transpose, "another order"),
    (swapped_inputs, "no conv"),
    (other_shape, "declares"), (float_island, "of type fp16|convert|again"),
    (lambda f, g: bias(f, g, step), "bias of channel 5"),
    (lambda f, g: bias(f, g, lambda b: b + 2**24), "bias of channel 5"),
    (method, "forward2"), (doubled, "more than one"), (second_output, "another outputs"),
    (twice, "another chains"), (note, "labels"), (new_note, "'classes'"), (data, "'more'"),
    (overlapping, "another values"), (no_note, "is missing"),
    (lambda f, g: g["output_ids"].append(0), "output_ids"),
])  # fmt: skip
def test_a_change_is_named(changed: Callable, precision: str, edit: Callable, named: str) -> None:
    said = changed(precision, edit)
    assert re.search(named, said), said


def test_a_relu_less(changed: Callable) -> None:
    assert "has no ReLU" in changed("fp32", no_relu)


def test_other_scales(changed: Callable) -> None:
    def activation(file: Any, graph: Any) -> None:
        value(graph, find(graph, "XNNAdd")["xnode_union"]["output_id"])["quant_params"][
            "scale"
        ] += 1

    def bias_scale(file: Any, graph: Any) -> None:
        first, second = (find(graph, "XNNConv2d", n)["xnode_union"]["bias_id"] for n in (1, 2))
        own, other = (value(graph, n)["quant_params"] for n in (first, second))
        own["scale_buffer_idx"] = other["scale_buffer_idx"]

    assert "scale" in changed("int8", activation)
    assert "bias' scale" in changed("int8", bias_scale)


def test_trailing_bytes(exported: dict, tmp_path: Path) -> None:
    whole, source = exported["int8"]
    path = tmp_path / "network.pte"
    path.write_bytes(whole.read_bytes() + b"more")
    assert "bytes that no part" in "\n".join(problems(path, source, "int8"))


def meaning(data: bytes) -> Any:
    """A program without what debuggers are told, the memory to spare, and who wrote it."""
    from executorch.exir._serialize import _program as serialization

    program = serialization.deserialize_pte_binary(data).program
    graph, _ = xnnpack._decoded(bytes(program.backend_delegate_data.pop().data))
    for node in graph["xnodes"]:
        node["debug_handle"] = 0
    plan = next(p for p in program.execution_plan if p.name == "forward")
    plan.non_const_buffer_sizes = None
    program.execution_plan = [p for p in program.execution_plan if p.name != "edgeres.version"]
    return program, graph


@pytest.mark.parametrize("precision", executorch.PRECISIONS)
def test_every_flipped_bit_is_found(exported: dict, tmp_path: Path, precision: str) -> None:
    whole, source = exported[precision]
    path, right = tmp_path / "network.pte", whole.read_bytes()
    # Most of a file is weights: as many places in the program and its graph, which end it.
    from executorch.exir._serialize import _program as serialization

    header = serialization._get_extended_header(right)
    file = serialization.deserialize_pte_binary(right)
    graph = right.find(bytes(file.program.backend_delegate_data[0].data)[:200])
    ends = [*range(header.program_size), *range(graph, graph + 9000)]
    chance, count = random.Random(precision), int(os.environ.get("EDGERES_FLIPS", "20"))
    places = chance.sample(range(len(right)), count) + chance.sample(ends, count)
    missed = []
    for at in places:
        wrong = bytearray(right)
        wrong[at] ^= 1 << chance.randrange(8)
        path.write_bytes(wrong)
        try:
            found = problems(path, source, precision)
        except BadInput:
            continue
        if not found and meaning(bytes(wrong)) != meaning(right):
            missed.append(at)
    assert not missed
