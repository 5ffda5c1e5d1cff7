"""Faults in a SavedModel's structure."""

from __future__ import annotations

from pathlib import Path

_NAME = "edgeres_fault"


def cut_identity(path: Path, number: int, operand: int) -> None:
    """See `_faults`."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    nodes = saved.meta_graphs[0].graph_def.node
    add = [n for n in nodes if n.op == "AddV2"][number]
    zeros = nodes.add(name=_NAME, op="ZerosLike", input=[add.input[operand]])
    zeros.attr["T"].CopyFrom(add.attr["T"])
    add.input[operand] = _NAME
    file.write_bytes(saved.SerializeToString())
