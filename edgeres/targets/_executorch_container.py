"""What a .pte file may hold beside its XNNPACK graph; anything else is named."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeres.targets._structure import notes_left_over

if TYPE_CHECKING:
    from executorch.exir import schema
    from executorch.exir._serialize._program import PTEFile

    from edgeres.targets import Source

# How torch.export describes one tensor, and a call with one: for Python's runtime.
_ONE = '{"type": null, "context": null, "children_spec": []}'
_CALL = (
    '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple",'
    f' "context": "null", "children_spec": [{_ONE}]}}, {{"type": "builtins.dict", "context": "[]",'
    ' "children_spec": []}]}]'
)
_ALIGNED, _SPARE = 16, 128  # of planned memory, in bytes


def program(file: PTEFile, source: Source) -> Iterator[str]:
    """The methods, and what they stand on."""
    from executorch.exir import schema

    stored = file.program
    yield from _others(stored, schema.Program(
        version=0, execution_plan=stored.execution_plan, segments=[],
        constant_buffer=[schema.Buffer(storage=b"")],
        backend_delegate_data=stored.backend_delegate_data[:1],
        constant_segment=schema.SubsegmentOffsets(segment_index=0, offsets=[]),
        mutable_data_segments=None, named_data=[],
    ), "the program")  # fmt: skip
    if file.mutable_data or (file.named_data and file.named_data.external_data):
        yield "it has data that may change, or that lie in another file"
    for key, entry in file.named_data.pte_data.items() if file.named_data else ():
        if entry.tensor_layout is not None or entry.alignment != 1:
            yield f"the data {key[:80]!r} have a layout"
    notes = {}
    for plan in stored.execution_plan:
        if plan.name == "forward":
            yield from _others(plan, _forward(plan, source), "the method forward")
            continue
        text = getattr(plan.values[0].val, "string_val", "")
        if plan.name in notes:
            yield f"two of its methods are called {plan.name[:80]!r}"
        notes[plan.name] = text
        yield from _others(plan, _note(plan.name, text), f"the method {plan.name[:80]!r}")
    if [plan.name for plan in stored.execution_plan].count("forward") != 1:
        yield "it has more than one method forward, or none"
    yield from notes_left_over(notes, source.metadata)


def _others(
    stored: object, expected: schema.Program | schema.ExecutionPlan, where: str
) -> Iterator[str]:
    for field in dataclasses.fields(expected):
        if getattr(stored, field.name) != getattr(expected, field.name):
            yield f"{where} has another {field.name} than export writes"


def _note(name: str, text: str) -> schema.ExecutionPlan:
    """A method that only returns a text."""
    from executorch.exir import schema

    return schema.ExecutionPlan(
        name=name, container_meta_type=schema.ContainerMetadata("", f"[1, {_ONE}]"), inputs=[],
        outputs=[0], values=[schema.EValue(schema.String(text))], chains=[_chain()], operators=[],
        delegates=[], non_const_buffer_sizes=[0],
    )  # fmt: skip


def _forward(stored: schema.ExecutionPlan, source: Source) -> schema.ExecutionPlan:
    """The method that gives all to one delegate: one image in, one row of logits out."""
    from executorch.exir import schema

    px = source.model.spec.preprocess.size_px
    image, logits = [1, 3, px, px], [1, source.model.spec.classes]
    between = -(-math.prod(image) * 4 // _ALIGNED) * _ALIGNED
    end = between + math.prod(logits) * 4
    sizes = stored.non_const_buffer_sizes
    enough = len(sizes) == 2 and sizes[0] == 0 and end <= sizes[1] < end + _SPARE
    whole = schema.BackendDelegateDataReference(schema.DataLocation.INLINE, 0)
    return schema.ExecutionPlan(
        name="forward", container_meta_type=schema.ContainerMetadata(_CALL, f"[1, {_ONE}]"),
        inputs=[0], outputs=[1], values=[_tensor(image, 0), _tensor(logits, between)],
        chains=[_chain(schema.Instruction(schema.DelegateCall(delegate_index=0, args=[0, 1])))],
        operators=[], delegates=[schema.BackendDelegate("XnnpackBackend", whole, [])],
        non_const_buffer_sizes=sizes if enough else [0, end],
    )  # fmt: skip


def _chain(*instructions: schema.Instruction) -> schema.Chain:
    from executorch.exir import schema

    return schema.Chain(inputs=[], outputs=[], instructions=[*instructions], stacktrace=None)


def _tensor(sizes: list[int], offset: int) -> schema.EValue:
    from executorch.exir import schema

    return schema.EValue(schema.Tensor(
        scalar_type=schema.ScalarType.FLOAT, storage_offset=0, sizes=sizes,
        dim_order=[*range(len(sizes))], requires_grad=False, layout=0, data_buffer_idx=0,
        allocation_info=schema.AllocationDetails(1, offset, 0),
        shape_dynamism=schema.TensorShapeDynamism.STATIC,
    ))  # fmt: skip
