"""A SavedModel that isn't exactly the network is found, by name."""

from __future__ import annotations

import copy
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import network

from edgeres.errors import BadInput
from edgeres.models.resnet import fold_batchnorm
from edgeres.targets import Source, savedmodel
from edgeres.verification.structure import mismatches

NOTES = {"edgeres.version": "0.1", "edgeres.labels": "a\nb"}
MODEL = "saved_model.pb"
_INT32, _HALF, _BFLOAT16, _COMPLEX64, _FLOAT = 3, 19, 14, 8, 1


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Source]:
    source = Source(fold_batchnorm(network("resnet8-se")), None, NOTES)
    path = tmp_path_factory.mktemp("exported") / "network.savedmodel"
    savedmodel.export(source, "fp32", path)
    return path, source


def problems(path: Path, source: Source) -> tuple[str, ...]:
    return mismatches(savedmodel.structure(path, source, "fp32"), source.model, None, "fp32")


@pytest.fixture
def changed(exported: tuple, tmp_path: Path) -> Callable[..., str]:
    """Apply a change to a copy of a SavedModel and say what is found then."""

    def change(edit: Callable[[Any], None]) -> str:
        from tensorflow.core.protobuf import saved_model_pb2

        whole, source = exported
        path = tmp_path / "network.savedmodel"
        shutil.copytree(whole, path)
        saved = saved_model_pb2.SavedModel.FromString((path / MODEL).read_bytes())
        edit(saved)
        (path / MODEL).write_bytes(saved.SerializeToString(deterministic=True))
        try:
            return "\n".join(problems(path, source))
        except BadInput as error:
            return str(error)

    return change


def test_untouched(exported: tuple) -> None:
    path, source = exported
    assert len(savedmodel.structure(path, source, "fp32").steps) > 20
    assert not problems(path, source)


@pytest.mark.parametrize("name", ["resnet8-w2-mobile-A", "resnext11-4x16d-w0.25"])
def test_other_networks(tmp_path: Path, name: str) -> None:
    source = Source(fold_batchnorm(network(name)), None, NOTES)
    savedmodel.export(source, "fp32", tmp_path / "network.savedmodel")
    assert not problems(tmp_path / "network.savedmodel", source)


def nodes(saved: Any) -> Any:
    return saved.meta_graphs[0].graph_def.node


def find(saved: Any, kind: str, nth: int = 0) -> Any:
    return [n for n in nodes(saved) if n.op == kind][nth]


def insert(saved: Any, kind: str, name: str, inputs: list[str], behind: str, **types: int) -> None:
    """A node like `behind`, behind it."""
    at = [n.name for n in nodes(saved)].index(behind) + 1
    node = copy.deepcopy(nodes(saved)[at - 1])
    node.op, node.name = kind, name
    node.input[:] = inputs
    for key in [*node.attr]:
        if key != "_output_shapes":
            del node.attr[key]
    for key, number in (types or {"T": _FLOAT}).items():
        node.attr[key].type = number
    rest = [*nodes(saved)][at:]
    del nodes(saved)[at:]
    nodes(saved).append(node)
    nodes(saved).extend(rest)


def overrules(saved: Any) -> None:
    insert(saved, "AddV2", "more", ["fc/bias_add", "fc/bias_add"], "fc/bias_add")
    find(saved, "Identity").input[0] = "more"


def unused(saved: Any) -> None:
    insert(saved, "Relu", "spare", ["relu"], "relu")


def spare_constant(saved: Any) -> None:
    twin = copy.deepcopy(find(saved, "Const"))
    twin.name = "spare"
    nodes(saved).append(twin)


def second_name(saved: Any) -> None:
    nodes(saved).append(copy.deepcopy(find(saved, "Relu")))


def no_relu(saved: Any) -> None:
    first = find(saved, "Relu")
    for node in nodes(saved):
        node.input[:] = [first.input[0] if i == first.name else i for i in node.input]
    nodes(saved).remove(first)


def more_relu(saved: Any) -> None:
    insert(saved, "Relu", "more", ["fc/bias_add"], "fc/bias_add")
    find(saved, "Identity").input[0] = "more"


def island(kind: int) -> Callable[[Any], None]:
    def edit(saved: Any) -> None:
        insert(saved, "Cast", "there", ["relu"], "relu", SrcT=_FLOAT, DstT=kind)
        insert(saved, "Cast", "back", ["there"], "there", SrcT=kind, DstT=_FLOAT)
        find(saved, "Conv2D", 1).input[0] = "back"

    return edit


def attribute(kind: str, nth: int, key: str, values: list[int]) -> Callable[[Any], None]:
    def edit(saved: Any) -> None:
        find(saved, kind, nth).attr[key].list.i[:] = values

    return edit


def padding(kind: bytes) -> Callable[[Any], None]:
    def edit(saved: Any) -> None:
        node = find(saved, "Conv2D")
        node.attr["padding"].s = kind
        del node.attr["explicit_paddings"]

    return edit


def constant(name: str, change: Callable[[np.ndarray], None]) -> Callable[[Any], None]:
    def edit(saved: Any) -> None:
        tensor = next(n for n in nodes(saved) if n.name == name).attr["value"].tensor
        stored = np.frombuffer(tensor.tensor_content, np.float32).copy()
        change(stored)
        tensor.tensor_content = stored.tobytes()

    return edit


def step(stored: np.ndarray) -> None:
    stored[5] = np.nextafter(stored[5], np.float32(9))


def much(stored: np.ndarray) -> None:
    stored[5] += 2.0**24


def axes(saved: Any) -> None:
    node = next(n for n in nodes(saved) if n.op == "Const" and n.attr["dtype"].type == _INT32)
    node.attr["value"].tensor.tensor_content = np.array([0, 1], np.int32).tobytes()


def flat_gate(saved: Any) -> None:
    """(N, C) is multiplied with (N, H, W, C): images mix."""
    mean = find(saved, "Mean")
    del mean.attr["keep_dims"]


def channels_first(saved: Any) -> None:
    find(saved, "Conv2D").attr["data_format"].s = b"NCHW"


def device(saved: Any) -> None:
    find(saved, "Conv2D").device = "/job:other"


def control(saved: Any) -> None:
    find(saved, "Conv2D", 1).input.append("^conv1")


def second_graph(saved: Any) -> None:
    saved.meta_graphs.append(copy.deepcopy(saved.meta_graphs[0]))
    saved.meta_graphs[1].meta_info_def.tags[:] = ["serve", "gpu"]


def second_signature(saved: Any) -> None:
    signatures = saved.meta_graphs[0].signature_def
    signatures["other"].CopyFrom(signatures["serving_default"])


def second_output(saved: Any) -> None:
    outputs = saved.meta_graphs[0].signature_def["serving_default"].outputs
    outputs["more"].CopyFrom(outputs["logits"])


def other_output(saved: Any) -> None:
    saved.meta_graphs[0].signature_def["serving_default"].outputs["logits"].name = "fc:0"


def function(saved: Any) -> None:
    saved.meta_graphs[0].graph_def.library.function.add().signature.name = "f"


def asset(saved: Any) -> None:
    saved.meta_graphs[0].asset_file_def.add(filename="labels.txt")


def collection(saved: Any) -> None:
    saved.meta_graphs[0].collection_def["saved_model_main_op"].node_list.value.append("init")


def tag(saved: Any) -> None:
    saved.meta_graphs[0].meta_info_def.tags.append("train")


def operators(saved: Any) -> None:
    saved.meta_graphs[0].meta_info_def.stripped_op_list.op[0].is_commutative = False


def producer(saved: Any) -> None:
    saved.meta_graphs[0].graph_def.versions.producer = 12


def shape(saved: Any) -> None:
    find(saved, "Conv2D").attr["_output_shapes"].list.shape[0].dim[1].size = 8


@pytest.mark.parametrize(("edit", "named"), [
    (overrules, "no add"), (unused, "nothing reads"), (spare_constant, "'spare' is not used"),
    (second_name, "another's too"), (no_relu, "has no ReLU"), (more_relu, "no ReLU behind"),
    (island(_HALF), "no such operation"), (island(_BFLOAT16), "no such operation"),
    (island(_COMPLEX64), "no such operation"),
    (attribute("Conv2D", 0, "strides", [1, 2, 1, 1]), "stride"),
    (attribute("Conv2D", 0, "strides", [2, 1, 1, 1]), "steps over"),
    (attribute("Conv2D", 0, "explicit_paddings", [0, 0, 0, 2, 1, 1, 0, 0]), "padding"),
    (attribute("Conv2D", 0, "explicit_paddings", [0, 0, 1, 1, 1, 1, 0, 1]), "pads images"),
    (attribute("Conv2D", 0, "dilations", [1, 2, 2, 1]), "its dilation is"),
    (padding(b"VALID"), "padding"), (padding(b"OTHER"), "padding"), (axes, "the axes"),
    (constant("conv1/bias", step), "bias of channel 5"),
    (constant("conv1/bias", much), "bias of channel 5"), (constant("fc/weight", much), "weights"),
    (flat_gate, "ranks"), (channels_first, "data_format"), (device, "device"), (control, "inputs"),
    (second_graph, "2 graphs"), (second_signature, "'other'"), (second_output, "signature"),
    (other_output, "signature"), (function, "library"), (asset, "asset_file_def"),
    (collection, "collection_def"), (tag, "train"), (operators, "list of operators"),
    (producer, "producer"), (shape, "said to be"),
])  # fmt: skip
def test_a_change_is_named(changed: Callable, edit: Callable, named: str) -> None:
    said = changed(edit)
    assert re.search(named, said), said


def add_file(path: Path) -> None:
    (path / "assets").mkdir()
    (path / "assets/labels.txt").write_text("a")


def add_variables(path: Path) -> None:
    (path / "variables").mkdir()


def add_link(path: Path) -> None:
    (path / "assets.extra/more.txt").symlink_to("/etc/hostname")


def by_link(path: Path) -> None:
    (path / MODEL).rename(path.parent / "elsewhere")
    (path / MODEL).symlink_to(path.parent / "elsewhere")


def note(path: Path) -> None:
    (path / "assets.extra/edgeres.labels.txt").write_text("b\na")


def trailing(path: Path) -> None:
    (path / MODEL).write_bytes((path / MODEL).read_bytes() + b"\xfa\x7f\x03abc")


@pytest.mark.parametrize(("edit", "named"), [
    (add_file, "assets/labels.txt"), (add_variables, "variables"), (add_link, "more.txt"),
    (by_link, "link"), (note, "labels"), (trailing, "no known meaning"),
])  # fmt: skip
def test_another_folder(exported: tuple, tmp_path: Path, edit: Callable, named: str) -> None:
    whole, source = exported
    path = tmp_path / "network.savedmodel"
    shutil.copytree(whole, path)
    edit(path)
    assert named in "\n".join(problems(path, source))


def meaning(data: bytes) -> Any:
    """A file without the number of the TensorFlow that wrote it, which may be any."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString(data)
    saved.meta_graphs[0].meta_info_def.tensorflow_version = ""
    return saved


def test_every_flipped_bit_is_found(exported: tuple, tmp_path: Path) -> None:
    whole, source = exported
    path = tmp_path / "network.savedmodel"
    shutil.copytree(whole, path)
    right = (path / MODEL).read_bytes()
    chance, count = random.Random(0), int(os.environ.get("EDGERES_FLIPS", "60"))
    # Most of a file is weights; the list of operators at its start and the signature at its end
    # are small.
    places = chance.sample(range(len(right)), count) + chance.sample(range(8000), count)
    places += range(len(right) - 150, len(right))
    missed = []
    for at in places:
        wrong = bytearray(right)
        wrong[at] ^= 1 << chance.randrange(8)
        (path / MODEL).write_bytes(wrong)
        try:
            if not problems(path, source) and meaning(bytes(wrong)) != meaning(right):
                missed.append(at)
        except BadInput:
            pass
    assert not missed
