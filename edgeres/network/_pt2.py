"""A .pt2 file, as `torch.export.save` writes it, without running anything of it.

`torch.export.load` unpickles what a file holds and evaluates its symbolic shapes. Here the program
is read as the JSON that it is (torch/_export/serde/schema.py), and tensors as raw numbers.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from edgeres.errors import BadInput
from edgeres.network._walk import require_ends

_MOST_TENSORS = 8 << 30  # bytes
_MOST_TEXT = 64 << 20
_MOST_NODES = 100_000
# torch/_export/serde/schema.py, ScalarType
_TYPES = {1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64,
          6: torch.float16, 7: torch.float32, 8: torch.float64, 12: torch.bool,
          13: torch.bfloat16}  # fmt: skip
_OWN = ("parameter_name", "buffer_name", "tensor_constant_name")
_AGAIN = "save it again with torch 2.8 or newer: torch.export.save(torch.export.export(…), FILE)"


@dataclass(frozen=True)
class Call:
    """One operation of a program.

    Attributes:
        target: e.g. `conv2d.default`, without `torch.ops.aten.`; else as it stands there.
        arguments: by name; a tensor is a `Ref`.
        results: names of what it makes.
        scope: dotted name of the module it stands in; "" for the whole network.
    """

    target: str
    arguments: Mapping[str, Any]
    results: tuple[str, ...]
    scope: str


@dataclass(frozen=True)
class Ref:
    """A tensor by name."""

    name: str


@dataclass(frozen=True)
class Program:
    """A whole program.

    Attributes:
        image: name of its one input.
        answer: name of its one output.
        known: tensors of the file by the names that calls use -> their own names.
        tensors: by their own names, e.g. `layer1.0.conv1.weight`.
        shapes: of values; an axis that isn't fixed is 0.
    """

    calls: tuple[Call, ...]
    image: str
    answer: str
    known: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]


def read(data: bytes, where: str) -> Program:
    """Read a program.

    Raises:
        BadInput: it isn't one, an older torch wrote it, it has more than one input or output, or
            its tensors are pickled.
    """
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return _program(archive, where)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError,
            zipfile.BadZipFile) as error:  # fmt: skip
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BadInput(f"{where}: not a program that can be read ({said}); {_AGAIN}") from error


def _program(archive: zipfile.ZipFile, where: str) -> Program:
    entries = {i.filename.partition("/")[2]: i for i in archive.infolist()}
    if "models/model.json" not in entries:
        old = "serialized_exported_program.json" in {i.filename for i in archive.infolist()}
        raise BadInput(
            f"{where}: {'an older torch wrote it' if old else 'holds no program'}; {_AGAIN}"
        )
    graph_module = json.loads(_bytes(archive, entries["models/model.json"], _MOST_TEXT))[
        "graph_module"]  # fmt: skip
    graph, signature = graph_module["graph"], graph_module["signature"]
    if len(graph["nodes"]) > _MOST_NODES:
        raise BadInput(f"{where}: has more than {_MOST_NODES:,} operations")
    known: dict[str, str] = {}
    inputs: list[str] = []
    for spec in signature["input_specs"]:
        ((kind, content),) = spec.items()
        if kind == "user_input":
            inputs.append(content["arg"]["as_tensor"]["name"])
        else:
            known[content["arg"]["name"]] = next(content[key] for key in _OWN if key in content)
    outputs = [spec["user_output"]["arg"]["as_tensor"]["name"]
               for spec in signature["output_specs"] if "user_output" in spec]  # fmt: skip
    require_ends(where, len(inputs), len(outputs))
    shapes = {name: tuple(_axis(size) for size in meta["sizes"])
              for name, meta in graph["tensor_values"].items()}  # fmt: skip
    calls = tuple(map(_call, graph["nodes"]))
    return Program(calls, inputs[0], outputs[0], known, _tensors(archive, entries, where), shapes)


def _axis(size: Mapping[str, object]) -> int:
    whole = size.get("as_int")
    return whole if isinstance(whole, int) else 0


def _call(node: Mapping[str, Any]) -> Call:
    results: list[str] = []
    for output in node["outputs"]:
        ((kind, value),) = output.items()
        results += [v["name"] for v in (value if kind == "as_tensors" else [value])
                    if isinstance(v, dict) and "name" in v]  # fmt: skip
    arguments = {given["name"]: _argument(given["arg"]) for given in node["inputs"]}
    stack = str(node["metadata"].get("nn_module_stack", ""))
    scope = stack.split(";")[-1].split(",")[1] if stack else ""
    target = str(node["target"]).removeprefix("torch.ops.aten.")
    return Call(target, arguments, tuple(results), scope)


def _argument(given: Mapping[str, Any]) -> object:
    ((kind, value),) = given.items()
    if kind == "as_tensor":
        return Ref(value["name"])
    if kind == "as_tensors":
        return [Ref(v["name"]) for v in value]
    if kind == "as_none":
        return None
    if kind in ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_string",
                "as_memory_format", "as_scalar_type"):  # fmt: skip
        return value
    if kind == "as_sym_int":
        return value.get("as_int")
    if kind == "as_sym_ints":
        return [v.get("as_int") for v in value]
    return f"<{kind}>"


def _tensors(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], where: str
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for kind in ("weights", "constants"):
        listed = entries.get(f"data/{kind}/model_{kind}_config.json")
        if listed is None:
            continue
        config = json.loads(_bytes(archive, listed, _MOST_TEXT))["config"]
        for name, entry in config.items():
            if entry["use_pickle"]:
                raise BadInput(f"{where}: '{name[:80]}' is pickled, and pickles run code; keep its "
                               "tensors contiguous and save it again")  # fmt: skip
            meta = entry["tensor_meta"]
            raw = _bytes(archive, entries[f"data/{kind}/{entry['path_name']}"], _MOST_TENSORS)
            dtype = _TYPES[meta["dtype"]]
            flat = (
                torch.frombuffer(bytearray(raw), dtype=dtype)
                if raw
                else torch.empty(0, dtype=dtype)
            )
            sizes, strides = ([_axis(v) for v in meta[key]] for key in ("sizes", "strides"))
            start = _axis(meta["storage_offset"])
            reach = start + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True)) + 1
            if (min(sizes, default=1) and not 0 < reach <= len(flat)) or min(
                [0, start, *strides]
            ) < 0:
                raise ValueError(f"'{name[:80]}' is larger than its bytes")
            found[name] = flat.as_strided(sizes, strides, start).clone().contiguous()
    return found


def _bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    if entry.file_size > most:
        raise ValueError(f"{entry.filename[:80]} is larger than {most >> 20:,} MiB")
    with archive.open(entry) as file:
        found = file.read(entry.file_size + 1)
    if len(found) != entry.file_size:
        raise ValueError(f"{entry.filename[:80]} isn't as long as it says")
    return found
