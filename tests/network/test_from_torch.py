"""Anybody's module or .pt2 file becomes the same function with the same names, or is refused."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import images
from network.nets import (
    HEADS,
    SPREAD,
    Gated,
    Joined,
    Mobile,
    Plain,
    Ported,
    Split,
    Spread,
    Squeezed,
    headed,
    of,
    saved,
)
from torch import Tensor, nn

from edgeres import targets
from edgeres.compression import budgets, criteria, ptq
from edgeres.compression.graph import concatenated, wiring
from edgeres.compression.integers import integer_graph
from edgeres.compression.prune import prune
from edgeres.errors import BadInput
from edgeres.models import modules, spec, weights
from edgeres.models.pixels import of_pixels
from edgeres.models.shapes import shapes_of
from edgeres.network import document
from edgeres.network.from_torch import from_module, from_pt2
from edgeres.teachers import Wanted, checkpoint
from edgeres.training.inference import prepared
from edgeres.types import Preprocess


@pytest.mark.parametrize("kind", [Mobile, Gated, Ported, Joined, Split])
def test_it_computes_the_same_under_the_same_names(kind: Any, tmp_path: Path) -> None:
    theirs = of(kind)
    x = torch.randn(3, 3, 16, 16)
    for ours in (
        from_module(theirs, 16).module,
        from_pt2(saved(theirs, tmp_path / "net.pt2"), mean=(0.5,), std=(0.5,)).module,
    ):
        made = ours.state_dict().keys() - theirs.state_dict().keys()
        fixed = {key.removesuffix(".weight").removesuffix(".bias") for key in made}
        kinds = {name.split(".")[-1].rstrip("_0123456789") for name in fixed}
        assert kinds <= {"shift", "part", "shuffle", "slice"}  # of hard-sigmoids, slices, shuffles
        assert theirs.state_dict().keys() <= ours.state_dict().keys()
        held = [n for n, p in ours.named_parameters() if not p.requires_grad]
        assert {*held} == made
        with torch.no_grad():
            torch.testing.assert_close(ours(x), theirs(x))
            torch.testing.assert_close(
                modules.fold_batchnorm(ours)(x), theirs(x), atol=2e-4, rtol=1e-3
            )
        network = ours.spec
        again = spec.from_json(json.loads(json.dumps(spec.to_json(network))))
        assert again == network and hash(again) == hash(network)
        assert network.classes == 10 and network.preprocess == Preprocess(16, (0.5,), (0.5,))
        weights.save(tmp_path, ours)
        with torch.no_grad():
            assert torch.equal(weights.load(tmp_path)(x), ours(x))


def test_what_is_left_out_is_said_and_training_mode_is_kept() -> None:
    theirs = of(Mobile).train()
    read = from_module(theirs, 16)
    assert theirs.training and not read.module.training
    assert [note.partition(" is left out")[0] for note in read.notes] == ["dropout (0.2)"]
    assert not read.fixed_size and from_module(of(Gated), 16).fixed_size is False
    uneven = from_module(of(Ported), 16)
    assert uneven.fixed_size and [n for n in uneven.notes if "larger kernel, with zeros there" in n]
    kernels = {n.name: n.pair("kernel") for n in uneven.module.spec.nodes if n.op == "conv2d"}
    assert kernels == {"stem": (4, 4), "wide": (6, 6), "tall": (3, 1), "even": (3, 3),
                       "same": (3, 3)}  # fmt: skip


@pytest.mark.parametrize("odd", [torch.softmax, torch.log_softmax])
def test_a_softmax_at_the_end_is_left_out(odd: Any, tmp_path: Path) -> None:
    body = of(Mobile)
    theirs = _Softmax(body, odd)
    x = torch.randn(2, 3, 16, 16)
    read = from_module(theirs, 16)
    again = from_pt2(saved(theirs, tmp_path / "net.pt2"), mean=(0.5,), std=(0.5,))
    with torch.no_grad():
        torch.testing.assert_close(read.module(x), body(x))
        assert torch.equal(read.module(x), again.module(x))
    assert f"the {odd.__name__} at its end is left out" in " ".join(read.notes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_read_as_float32(dtype: torch.dtype) -> None:
    theirs = of(Mobile).to(dtype)
    read = from_module(theirs, 16)
    assert f"its weights are {str(dtype)[6:]}, and are read as float32" in read.notes[0]
    assert {p.dtype for p in theirs.parameters()} == {dtype}
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(read.module(x), theirs.float()(x))


@pytest.mark.parametrize(
    "wrapped",
    [lambda m: m.to(memory_format=torch.channels_last), nn.DataParallel, torch.compile,
     lambda m: torch.compile(nn.DataParallel(m))],
)  # fmt: skip
def test_what_trainers_do_to_a_module_is_undone(wrapped: Any) -> None:
    plain = from_module(of(Mobile), 16).module
    read = from_module(wrapped(of(Mobile)), 16).module
    assert read.spec == plain.spec
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in read.state_dict().items())


def test_a_new_head_other_outputs_and_pixels() -> None:
    ours = from_module(of(Mobile), 16, mean=(0.485, 0.456, 0.406), std=(0.2, 0.2, 0.3)).module
    x = torch.randn(2, 3, 16, 16)
    other = modules.with_new_head(ours, 4)
    assert other.spec.classes == 4 and other(x).shape == (2, 4) and not other(x).any()
    assert modules.head(other)[0] == "classifier.1"
    some = modules.with_outputs(ours, torch.tensor([7, 1]))
    torch.testing.assert_close(some(x), ours(x)[:, [7, 1]])
    taken = of_pixels(ours)
    white = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)
    for model in (
        taken,
        of_pixels(from_module(of(Gated), 16, mean=(0.4, 0.5, 0.6), std=(0.2,)).module),
    ):
        assert model.spec.preprocess == spec.default_preprocess(16)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    stems = [m.get_submodule("features.1")(m.get_submodule("features.0")(
        prepared(pixels, m.spec.preprocess))) for m in (ours, taken)]  # fmt: skip
    torch.testing.assert_close(
        stems[1][..., 1:-1, 1:-1], stems[0][..., 1:-1, 1:-1], rtol=0, atol=1e-4
    )
    assert taken(prepared(white, taken.spec.preprocess)).isfinite().all()


class _Softmax(nn.Module):
    def __init__(self, body: nn.Module | None = None, odd: Any = torch.softmax) -> None:
        super().__init__()
        self.body, self.odd = body or of(Mobile), odd

    def forward(self, x: Tensor) -> Tensor:
        return self.odd(self.body(x), 1)  # type: ignore[no-any-return]


class _Named(_Softmax):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": self.body(x)}


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = of(Mobile)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), x.mean((2, 3))


class _Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.factor = of(Mobile), nn.Parameter(torch.ones(10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * self.factor


class _Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 14 * 14, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).flatten(1).sigmoid())


class _Padded(nn.Module):
    def __init__(self, of: str, dilation: int = 1):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, dilation=dilation), nn.Linear(4, 5)
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        if self.of == "conv":
            return self.fc(self.conv(nn.functional.pad(x, (0, 1, 1, 0))).mean((2, 3)))
        x = nn.functional.pad(self.conv(x), (1, 1, 1, 1), value=float(self.of == "ones"))
        return self.fc(nn.functional.max_pool2d(x, 3, 2).mean((2, 3)))


class _Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.changed(self.conv(x))
        return self.fc(x.mean((2, 3)))

    def changed(self, x: Tensor) -> Tensor:
        return torch.cat((x, x), 2)


class _Turned(_Rows):
    def changed(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3)


class _Steps(_Rows):
    def changed(self, x: Tensor) -> Tensor:
        return torch.cat((x[:, ::2], x[:, 1::2]), 1)


class _Overwritten(_Rows):
    """A slice is changed in place, and what it is a slice of is read then."""

    def changed(self, x: Tensor) -> Tensor:
        torch.relu_(x[:, :2])
        return x


def test_a_slice_changed_in_place_is_refused_or_right() -> None:
    with pytest.raises(BadInput, match=r"isn't made of the image|isn't known"):
        from_module(_Overwritten(), 16)


class _Behind(nn.Module):
    """ReLUs behind pools and long concatenations; a pooled image and a pooled gate in one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(27, 5)

    def forward(self, x: Tensor) -> Tensor:
        pool = nn.functional.max_pool2d
        y = self.conv(x)
        long = torch.relu(torch.cat((y, y, y, y, y), 1))
        gate = pool(torch.sigmoid(y)[:, :1], 2)
        z = torch.cat((pool(x, 2)[:, :2], gate, torch.relu(pool(y, 3, 2, 1)), pool(long, 2)), 1)
        return self.fc(torch.relu(torch.flatten(z.mean((2, 3), keepdim=True), 1)))


def test_every_layer_knows_what_it_reads() -> None:
    theirs = of(_Behind)
    ours = modules.fold_batchnorm(from_module(theirs, 16).module)
    wires = wiring(ours.spec)
    assert {s for w in wires for s in w.sources} <= {"input", *(w.name for w in wires)}
    assert [w.name for w in wires if "input" in w.sources and w.kind != "conv"] == []
    assert concatenated(ours.spec)
    folded, scales = ptq.quantize(ours, torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8))
    assert {w.name for w in wires} <= set(scales) and folded.spec == ours.spec


class _OwnScales(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(11, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.fc(torch.cat((x, y, torch.sigmoid(y)), 1).mean((2, 3)))


def test_images_and_gates_are_concatenated_behind_a_convolution() -> None:
    """Their scales are fixed; what is concatenated has one."""
    theirs = of(_OwnScales)
    ours = from_module(theirs, 16).module
    (join,) = [node for node in ours.spec.nodes if node.op == "concat"]
    assert [name.partition(".")[2] for name in join.inputs] == ["same", "", "same_2"]
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
    (group,) = concatenated(modules.fold_batchnorm(ours).spec)
    assert len(group) == 4


@pytest.mark.parametrize(
    ("model", "said"),
    [(nn.Sequential(of(Mobile), nn.Softmax(0)), "softmax before the end isn't known in '1'"),
     (nn.Sequential(_Softmax(), nn.ReLU()), "softmax before the end isn't known in '0'"),
     (_Two(), "gives a tuple; a classifier gives a tensor"),
     (_Named(), "gives a dict; a classifier gives a tensor"),
     (of(Mobile).to("meta"), "the device 'meta', which holds no numbers"),
     (torch.jit.trace(of(Mobile), torch.zeros(1, 3, 16, 16)), "is a TorchScript module"),
     (_Branching(), "torch.export can't read this module"),
     (_Scaled(), "mul.Tensor reads what isn't made of the image"),
     (_Flat(), r"sigmoid.default of a map that was flattened isn't known"),
     (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), "has no logits|gives|isn't"),
     (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.BatchNorm1d(784), nn.ReLU(),
                    nn.Linear(784, 5)), "relu.default of a map that was flattened isn't known"),
     (_Padded("pool"), "max_pool2d.default of a padded map isn't known"),
     (_Padded("ones"), "pad.default with other than zeros around a map isn't known"),
     (_Padded("conv", 2), r"conv2d.default with these arguments \(padding between the rows of a "
                          r"dilated kernel, or more than it has\) isn't known in 'conv'"),
     (_Rows(), "cat along another axis than a map's channels isn't known"),
     (_Turned(), "transpose.int isn't known but in a channel shuffle"),
     (_Steps(), "slice.Tensor along another axis than a map's channels isn't known"),
     (nn.Sequential(nn.Conv2d(3, 4, 3)), r"gives \(N, 4, 14, 14\)")],
)  # fmt: skip
def test_what_is_unknown_is_refused_by_name(model: nn.Module, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        from_module(model, 16)


def test_a_flattened_map_is_read_by_a_convolution_as_large(tmp_path: Path) -> None:
    """LeNet, VGG: under the same names, and each format has the vector's order of its own."""
    model = of(Plain)
    read = from_module(model, 16)
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(read.module(x), model(x))
    assert read.fixed_size
    assert read.module.state_dict()["classifier.2.weight"].shape == (20, 12, 3, 6)
    budget = budgets.macs(shapes_of(read.module, 16), 0.7)
    slim = prune(read.module, budget, round_to=2, criterion=lambda _: criteria.magnitude())
    folded, scales = ptq.quantize(slim, images(32, 16))
    with torch.no_grad():
        expected = integer_graph(folded, scales)(prepared(images(32, 16), folded.spec.preprocess))
    for name in ("tflite-int8", "onnx-int8"):
        target, precision = targets.load(name)
        path = tmp_path / f"net{target.SUFFIX}"
        first, last = target.export(targets.Source(folded, scales), precision, path)
        assert not target.read(path).float_operators()
        given = prepared(images(32, 16), folded.spec.preprocess).contiguous().numpy()
        session = target.session(path)
        assert session is not None
        found = targets.decode(session.run(targets.encode(given, first)), last)
        assert np.array_equal(found, expected.numpy()), name


@pytest.mark.parametrize("head", HEADS)
def test_what_classifiers_make_of_vectors(head: str, tmp_path: Path) -> None:
    model = of(lambda: headed(head))
    x = torch.rand(4, 3, 16, 16)
    for read in (
        from_module(model, 16),
        from_pt2(saved(model, tmp_path / "net.pt2"), mean=(0.5,), std=(0.5,)),
    ):
        assert not any(node.op == "unflatten" for node in read.module.spec.nodes)
        with torch.no_grad():
            torch.testing.assert_close(read.module(x), model(x))
            torch.testing.assert_close(modules.fold_batchnorm(read.module)(x), model(x))


@pytest.mark.parametrize("shape", ["view", "none", "expand"])
def test_a_gate_of_linear_layers_is_one_of_convolutions(shape: str, tmp_path: Path) -> None:
    """In integers, too: a vector between maps would be a reshape that runtimes compute in float."""
    model = of(lambda: Squeezed(shape))
    read = from_module(model, 16)
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(read.module(x), model(x))
    ops = {node.name: node.op for node in read.module.spec.nodes}
    assert ops["fc.0"] == ops["fc.2"] == ops["wide"] == "conv2d" and ops["out"] == "linear"
    assert list(ops.values()).count("flatten") == 1 and "unflatten" not in ops.values()
    assert not read.fixed_size
    if shape != "view":
        return
    folded, scales = ptq.quantize(read.module, images(32, 16))
    given = prepared(images(32, 16), folded.spec.preprocess)
    with torch.no_grad():
        expected = integer_graph(folded, scales)(given)
    for name in ("tflite-int8", "onnx-int8"):
        target, precision = targets.load(name)
        path = tmp_path / f"net{target.SUFFIX}"
        first, last = target.export(targets.Source(folded, scales), precision, path)
        assert not target.read(path).float_operators()
        session = target.session(path)
        assert session is not None
        found = targets.decode(session.run(targets.encode(given.contiguous().numpy(), first)), last)
        assert np.array_equal(found, expected.numpy()), name


def test_a_map_that_is_changed_as_a_vector_is_refused_by_who_reads_it() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(3, 4, 3, 3), nn.Linear(100, 5), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            y = self.a(x.view(-1, 100).relu_())
            return y + self.b(x.mean((2, 3)))

    with pytest.raises(BadInput, match="changed in place under another name"):
        from_module(Shared().eval(), 16)


def test_a_vector_that_others_read_stays_one_beside_the_map() -> None:
    """And a gate that isn't the whole of what reads it is left as it is."""

    class Both(nn.Module):
        def __init__(self, shared: bool) -> None:
            super().__init__()
            self.conv, self.low = nn.Conv2d(3, 8, 3), nn.Linear(8, 8)
            self.out, self.shared = nn.Linear(8, 5), shared

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.conv(x))
            pooled = x.mean((2, 3))
            gate = self.low(pooled)
            x = (x * torch.sigmoid(gate)[:, :, None, None]).mean((2, 3))
            return self.out(x + (gate if self.shared else pooled))

    x = torch.rand(4, 3, 16, 16)
    for shared in (False, True):
        model = of(lambda shared=shared: Both(shared))
        read = from_module(model, 16)
        with torch.no_grad():
            torch.testing.assert_close(read.module(x), model(x))
        assert ("unflatten" in {node.op for node in read.module.spec.nodes}) == shared


def test_nothing_of_a_file_runs(tmp_path: Path) -> None:
    """`torch.export.load` would unpickle the weights and evaluate the shapes."""
    good, bad, mark = tmp_path / "good.pt2", tmp_path / "bad.pt2", tmp_path / "ran"
    saved(of(Mobile), good)

    class Bomb:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {mark}",)

    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("weight_0"):
                data = pickle.dumps(Bomb())
            if entry.filename.endswith("weights_config.json"):
                data = data.replace(b'"use_pickle": false', b'"use_pickle": true')
            if entry.filename.endswith("models/model.json"):
                data = data.replace(
                    b'"as_expr": {"expr_str": "s', b'"as_expr": {"expr_str": "__import__(1)+s'
                )
            new.writestr(entry.filename, data)
    with pytest.raises(BadInput, match="is pickled, and pickles run code"):
        from_pt2(bad, mean=(0.5,), std=(0.5,))
    assert not mark.exists()


class _InPlace(nn.Module):
    """What is read after an operation in place is what that made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = (
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
        )
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x + self.norm(self.act(x))
        y = x.contiguous()
        y += self.act(x)
        return self.fc((x + y).mean((2, 3)))


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(torch.relu(self.conv(self.stem(x)))).mean((2, 3)))


@pytest.mark.parametrize("kind", [_InPlace, _Twice])
def test_in_place_and_shared_layers_compute_the_same(kind: Any) -> None:
    theirs = kind().eval()
    x = torch.randn(2, 3, 16, 16)
    read = from_module(theirs, 16)
    with torch.no_grad():
        torch.testing.assert_close(read.module(x), theirs(x))
    assert ["'conv' is used more than once" in n for n in read.notes] == [True] * (kind is _Twice)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"no zip at all" * 9])
def test_another_file_gets_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pt2"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.pt2: .*save it again with torch 2\.8"):
        from_pt2(path, mean=(0.5,), std=(0.5,))


def test_a_damaged_file_is_a_sentence_or_the_same_network(tmp_path: Path) -> None:
    whole = saved(of(Mobile), tmp_path / "net.pt2").read_bytes()
    read = 0
    for at in range(0, len(whole), len(whole) // 60):
        path = tmp_path / "cut.pt2"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        with contextlib.suppress(BadInput):  # whatever else comes is a fault
            from_pt2(path, mean=(0.5,), std=(0.5,))
            read += 1
    assert read < 61  # some of it matters


def _wanted(**change: Any) -> Wanted:
    return Wanted(**{"model": None, "classes": 10, "outputs": None, "data_px": 16} | change)


def test_as_a_teacher_broken_numbers_and_outputs_that_lack_are_refused(tmp_path: Path) -> None:
    theirs = of(Mobile)
    path = saved(theirs, tmp_path / "net.pt2")
    found = checkpoint.fetch(str(path), _wanted(outputs=(7, 1), classes=2), tmp_path).network
    assert found is not None and found.spec.classes == 2
    assert checkpoint.fetch(str(path), _wanted(data_px=24), tmp_path).network is not None
    for change, said in (
        ({"outputs": (1, 10), "classes": 2}, "10 is out of range"),
        ({"classes": 7}, "has 10 classes but the data have 7"),
    ):
        with pytest.raises(BadInput, match=said):
            checkpoint.fetch(str(path), _wanted(**change), tmp_path)
    with torch.no_grad():
        theirs.classifier[1].weight[0, 0] = float("nan")  # type: ignore[index, union-attr]
    broken = saved(theirs, tmp_path / "broken.pt2")
    with pytest.raises(BadInput, match=r"classifier\.1\.weight holds NaN"):
        checkpoint.fetch(str(broken), _wanted(), tmp_path)
    os.mkfifo(tmp_path / "pipe.pt2")
    with pytest.raises(BadInput, match="no such checkpoint file"):
        checkpoint.fetch(str(tmp_path / "pipe.pt2"), _wanted(), tmp_path)


def test_a_program_that_grows_when_unpacked_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", bytes(1 << 24))
    with pytest.raises(BadInput, match="would become"):
        from_pt2(path, mean=(0.5,), std=(0.5,))


def _changed(change: dict[str, Any]) -> dict[str, Any]:
    return document.to_json(from_module(of(Mobile), 16).module.spec) | change


NODE = {"name": "a", "op": "relu", "inputs": ["input"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [({"nodes": []}, "1 to 20,000 operations"),
     ({"nodes": [NODE, NODE], "output": "a"}, "two operations are named 'a'"),
     ({"nodes": [{**NODE, "op": "exec"}]}, "there is no operation 'exec'"),
     ({"nodes": [{**NODE, "name": "../x"}]}, "no name of an operation"),
     ({"nodes": [{**NODE, "inputs": ["b"]}]}, "reads 'b', which no operation before it makes"),
     ({"nodes": [{**NODE, "inputs": ["input", "input"]}]}, "relu reads 1 values"),
     ({"nodes": [{**NODE, "attributes": {"odd": 1}}]}, "'odd' don't go together"),
     ({"nodes": [NODE], "output": "b"}, "no operation makes the output"),
     ({"nodes": [{**NODE, "op": "linear", "attributes": {"in": 1 << 40, "out": 1, "bias": True}}]},
      "no whole number"),
     ({"name": "../../out"}, "is no name of a network"), ({"classes": -1}, "no whole number"),
     ({"preprocess": {"size_px": 16, "mean": ["x"], "std": [1]}}, "1 nor 3 numbers"),
     ({"nodes": 5}, "1 to 20,000 operations")],
)  # fmt: skip
def test_a_stored_network_is_checked(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        spec.from_json(_changed(change))


@pytest.mark.parametrize("name", ["forward", "features.0", "training", "spec"])
def test_a_name_that_a_module_has_already_is_refused(name: str, tmp_path: Path) -> None:
    model = from_module(of(Mobile), 16).module
    weights.save(tmp_path, model)
    stored = json.loads((tmp_path / "spec.json").read_text())
    (old,) = (n["name"] for n in stored["nodes"] if n["op"] == "linear")
    text = json.dumps(stored).replace(f'"{old}"', f'"{name}"')
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(BadInput):
        weights.load(tmp_path)


@pytest.mark.parametrize("way", SPREAD)
def test_a_pixel_as_large_as_a_map_is_refused_but_in_a_product_with_one(way: str) -> None:
    with pytest.raises(BadInput, match="isn't known"):
        from_module(Spread(way).eval(), 16, name="net")
