"""Every kind of checkpoint in docs/teachers.md, made here, and what happens with it.

A kind that loads must answer as the network did that was saved; the last column of the document is
compared with what is seen here, so that neither can be wrong alone.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import io
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from network.onnx_files import exported
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeres.errors import BadInput
from edgeres.models import foreign, resnet, spec
from edgeres.models.resnet import ResNet
from edgeres.teachers import Found, Wanted, checkpoint
from edgeres.types import Preprocess

PX, CLASSES = 32, 5
State = dict[str, Tensor]
DOCUMENT = Path(__file__).parents[2] / "docs" / "teachers.md"


def network(name: str = "resnet8", seed: int = 0, **change: Any) -> ResNet:
    """With batch statistics of its own, so that mixed-up ones are seen."""
    described = spec.parse(name, CLASSES, Preprocess(PX, (0.5,), (0.25,)), change.pop("stem", None))
    model = resnet.build(dataclasses.replace(described, **change), seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
    return model.eval()


def found(path: Path, **wanted: Any) -> Found:
    return checkpoint.fetch(str(path), Wanted(None, CLASSES, None, PX, **wanted), path.parent)


def same(one: nn.Module, other: nn.Module) -> None:
    x = torch.rand(3, 3, PX, PX, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(one(x), other(x), rtol=1e-4, atol=1e-5)


def plain(state: State, *rules: tuple[str, str]) -> State:
    """A state dict under other names."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value.clone()
    return renamed


def below(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


class Anything:
    """An object of the trainer's own program, which isn't there where the file is read."""

    def __init__(self) -> None:
        self.path, self.rate = Path("/data"), [0.1, 0.2]


TOP = "resnet10-w0.125"  # four stages, 8 channels
HEAD, BODY = (r"^fc\.", "{}"), r"^(?!fc\.)"


def fastai_names(state: State) -> State:
    layers = [(rf"^layer{n}\.", f"0.{n + 3}.") for n in range(1, 5)]
    return plain(state, (r"^conv1\.", "0.0."), (r"^bn1\.", "0.1."), *layers)


def weiaicunzai_names(state: State) -> State:
    layers = [(rf"^layer{n}\.", f"conv{n + 1}_x.") for n in range(1, 5)]
    inner = [(r"\.conv1\.", ".residual_function.0."), (r"\.bn1\.", ".residual_function.1."),
             (r"\.conv2\.", ".residual_function.3."),
             (r"\.bn2\.", ".residual_function.4.")]  # fmt: skip
    return plain(state, (r"^conv1\.", "conv1.0."), (r"^bn1\.", "conv1.1."),
                 (r"\.downsample\.", ".shortcut."), *layers, *inner)  # fmt: skip


def hugging_names(state: State) -> State:
    layers = [(rf"^layer{n}\.(\d+)\.", rf"encoder.stages.{n - 1}.layers.\1.") for n in range(1, 5)]
    inner = [(rf"\.(conv|bn){n}\.", rf".layer.{n - 1}.\1.") for n in (1, 2)]
    return plain(
        state, *layers, *inner, (r"^conv1\.", "embedder.embedder.conv."),
        (r"^bn1\.", "embedder.embedder.bn."), (r"downsample\.0", "shortcut.conv"),
        (r"downsample\.1", "shortcut.bn"), (r"\.conv\.", ".convolution."),
        (r"\.bn\.", ".normalization."), (r"^(embedder|encoder)", r"resnet.\1"),
        (r"^fc\.", "classifier.1."),
    )  # fmt: skip


def as_fastai(model: ResNet, path: Path) -> nn.Module:
    """A body and a head of pooling, batch norm and one linear layer, as `lin_ftrs=[]` makes it."""
    norm = nn.BatchNorm1d(model.fc.in_features)
    norm.running_mean, norm.running_var = torch.rand(64), torch.rand(64) + 0.5
    norm.weight.data, norm.bias.data = torch.rand(64) + 0.5, torch.rand(64)
    whole = copy.deepcopy(model)
    whole.fc = nn.Sequential(norm, nn.Dropout(), whole.fc)  # type: ignore[assignment]
    state = plain(fastai_names(whole.state_dict()), (r"^fc\.0\.", "1.2."), (r"^fc\.2\.", "1.4."))
    torch.save({"model": state, "opt": {"state": [torch.zeros(3)]}}, path)
    return whole.eval()


def pruned(model: ResNet, path: Path) -> nn.Module:
    from torch.nn.utils import prune

    masked = copy.deepcopy(model)
    for module in masked.modules():
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, "weight", 0.5)
    torch.save(masked.state_dict(), path)
    masked(torch.zeros(1, 3, PX, PX))
    return masked


def narrowed(path: Path) -> nn.Module:
    """Widths of no name, as a channel pruner leaves them."""
    described = spec.parse("resnet8", CLASSES, Preprocess(PX, (0.5,), (0.25,)))
    stages = [[dataclasses.replace(b, widths=(b.widths[0] - 5, b.widths[1])) for b in stage]
              for stage in described.stages]  # fmt: skip
    model = network(stages=tuple(map(tuple, stages)))
    torch.save(model.state_dict(), path)
    return model


def biased(model: ResNet, path: Path) -> nn.Module:
    whole = copy.deepcopy(model)
    for module in whole.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(torch.rand(module.out_channels))
    torch.save(whole.state_dict(), path)
    return whole


def averaged(model: ResNet, path: Path) -> nn.Module:
    swa = torch.optim.swa_utils.AveragedModel(model)
    torch.save(swa.state_dict(), path)
    return model


def in_training(model: ResNet, path: Path) -> nn.Module:
    """With all that a trainer keeps: arguments, optimizer, scheduler, objects of its own."""
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 3, PX, PX)).sum().backward()
    optimizer.step()
    arguments = argparse.Namespace(lr=0.1, out=Path("/tmp"), extra=Anything())
    torch.save({"epoch": 3, "args": arguments, "model": model.state_dict(), "own": Anything(),
                "optimizer": optimizer.state_dict(),
                "best": torch.tensor(0.9).numpy()}, path)  # fmt: skip
    return model


def scripted(model: ResNet, path: Path) -> nn.Module:
    torch.jit.trace(model, torch.zeros(1, 3, PX, PX)).save(str(path))
    return model


def program(model: ResNet, path: Path) -> nn.Module:
    torch.export.save(torch.export.export(model, (torch.zeros(1, 3, PX, PX),)), path)
    return model


def onnx_file(model: ResNet, path: Path) -> nn.Module:
    exported(model.eval(), path, px=PX)
    return model


class _Code:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def hostile(path: Path) -> None:
    torch.save({"state_dict": _Code(path.with_name("canary"))}, path)


def normalizing(model: ResNet, path: Path) -> nn.Module:
    layer = {"0.mean": torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1),
             "0.std": torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1)}  # fmt: skip
    torch.save({**layer, **below("1.", model.state_dict())}, path)
    return model


def moco(model: ResNet, path: Path) -> None:
    state = model.state_dict()
    torch.save({"state_dict": {**below("module.encoder_q.", state),
                               **below("module.encoder_k.", state),
                               "module.queue": torch.zeros(4, 5)}}, path)  # fmt: skip


def many_layers(model: ResNet, path: Path) -> None:
    body = {k: v for k, v in fastai_names(model.state_dict()).items() if k[:3] != "fc."}
    head = {"1.2.weight": torch.ones(128), "1.4.weight": torch.rand(20, 128),
            "1.8.weight": torch.rand(CLASSES, 20)}  # fmt: skip
    torch.save({"model": body | head}, path)


def saved(make: Callable[[ResNet], Any], name: str = "resnet8", **options: Any) -> Any:
    """A maker that saves something made of a network, and gives that network."""

    def maker(path: Path) -> nn.Module:
        model = network(name)
        torch.save(make(model), path, **options)
        return model

    return maker


def of(make: Callable[[ResNet, Path], Any], name: str = "resnet8") -> Any:
    return lambda path: make(network(name), path)


def other_kinds(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(400))


OTHER = network(seed=9).state_dict()
LINEAR = (r"^fc\.", "linear.")
# kind: what makes the file, and "loads" or the sentence that refuses it
KINDS: dict[str, tuple[Any, str]] = {
    "torchvision, timm": (saved(lambda m: m.state_dict(), TOP), "loads"),
    ".safetensors": (
        lambda path: [m := network(), save_file(m.state_dict(), path)][0], "loads"),
    "PyTorch before 1.6": (
        saved(lambda m: m.state_dict(), _use_new_zipfile_serialization=False), "loads"),
    "akamaster": (
        saved(lambda m: {"state_dict": below("module.", plain(
            {k: v for k, v in m.state_dict().items() if "downsample" not in k}, LINEAR)),
            "best_prec1": 91.7}, "resnet8-A"), "loads"),
    "kuangliu": (
        saved(lambda m: {"net": plain(m.state_dict(), LINEAR, ("downsample", "shortcut")),
                         "acc": 91.7}), "loads"),
    "weiaicunzai": (saved(lambda m: weiaicunzai_names(m.state_dict()), TOP), "loads"),
    "Hugging Face": (saved(lambda m: hugging_names(m.state_dict()), TOP), "loads"),
    "mmpretrain": (
        saved(lambda m: {"meta": Anything(), "state_dict": plain(
            m.state_dict(), (r"^(?!fc\.)", "backbone."), (r"^fc\.", "head.fc."))}, TOP), "loads"),
    "a Sequential of the children": (
        saved(lambda m: plain(m.state_dict(), (r"^conv1\.", "0."), (r"^bn1\.", "1."),
                              *((rf"^layer{n}\.", f"{n + 3}.") for n in range(1, 5)),
                              (r"^fc\.", "9.")), TOP), "loads"),
    "fastai, one linear layer": (of(as_fastai, TOP), "loads"),
    "fastai, its standard head": (
        of(many_layers, TOP), r"layers \(1\.2\.weight, 1\.4\.weight, 1\.8\.weight\) can't be one"),
    "Lightning": (
        saved(lambda m: {"state_dict": {**below("model.", m.state_dict()),
                                        "criterion.weight": torch.ones(5)},
                         "hyper_parameters": Anything(), "callbacks": {"x": Anything()}}), "loads"),
    "wrapped several times": (
        saved(lambda m: {"model_state_dict": below("_orig_mod.module.backbone.", m.state_dict())}),
        "loads"),
    "raw and EMA weights": (
        saved(lambda m: {"state_dict": OTHER, "state_dict_ema": m.state_dict()}), "loads"),
    "EMA without batch statistics": (
        saved(lambda m: {"model": {k: v if "running" in k else v * 2 for k, v in
                                   m.state_dict().items()},
                         "ema": {k: v for k, v in m.state_dict().items() if "running" not in k
                                 and "tracked" not in k}}), "loads"),
    "SWA (n_averaged)": (of(averaged), "loads"),
    "teacher and student": (
        saved(lambda m: {"student": below("module.", OTHER),
                         "teacher": below("module.backbone.", m.state_dict())}), "loads"),
    "MoCo": (of(moco, TOP), "projection for contrastive training"),
    "Sequential(Dropout, Linear)": (
        saved(lambda m: plain(m.state_dict(), (r"^fc\.", "fc.1."))), "loads"),
    "tensors of losses and projections": (
        saved(lambda m: {**m.state_dict(), "center_loss.centers": torch.ones(5, 3),
                         "projector.0.weight": torch.ones(3, 3), "total_ops": torch.ones(1),
                         "layer1.total_params": torch.ones(1)}), "loads"),
    "torch.nn.utils.prune": (of(pruned), "loads"),
    "pruned widths": (narrowed, "loads"),
    "another stem than the size suggests": (
        lambda path: [m := network(TOP, stem="imagenet"), torch.save(m.state_dict(), path)][0],
        "loads"),
    "arguments, optimizer, own objects": (of(in_training), "loads"),
    "a whole network (torch.save(model))": (saved(lambda m: m), "loads"),
    "float16, bfloat16": (
        lambda path: [m := network().half().float(), torch.save(
            {k: v.half() if v.is_floating_point() else v for k, v in m.state_dict().items()},
            path)][0], "loads"),
    "convolutions with biases": (of(biased), "loads"),
    "a normalizing layer in front": (of(normalizing), "loads"),
    "TorchScript": (of(scripted), r"is a TorchScript program.*torch\.jit\.load"),
    "torch.export (.pt2)": (of(program), "loads"),
    "ONNX, TFLite": (of(onnx_file), "loads"),
    "Keras and other files": (other_kinds, "is an HDF5 file, as Keras writes it, no checkpoint"),
    "quantized": (
        saved(lambda m: {k: v.to(torch.int8) if k == "conv1.weight" else v for k, v in
                         m.state_dict().items()}), "whole numbers, as quantized networks do"),
    "a deep stem (resnet50d)": (
        saved(lambda m: plain(m.state_dict(), (r"^conv1\.", "conv1.0.")), TOP),
        "stem is several convolutions"),
    "no ResNet": (
        lambda path: torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict(), path),
        "aren't named as a ResNet's"),
    "code": (hostile, r"posix\.mkdir in it is code, which is never run"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_checkpoint(tmp_path: Path, kind: str) -> None:
    make, expected = KINDS[kind]
    path = tmp_path / ("net.safetensors" if "safetensors" in kind else "net.pth")
    model = make(path)
    if expected != "loads":
        with pytest.raises(BadInput, match=expected):
            found(path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["net.pth"]  # nothing has run
        return
    network = found(path).network
    assert network is not None
    same(network, model)


def test_the_document_has_these_kinds_and_what_happens() -> None:
    table = DOCUMENT.read_text("utf-8").partition("## Checkpoints of others")[2]
    rows = re.findall(r"^\| ([^|]+?) \| [^|]+ \| (loads|refused)", table, re.MULTILINE)
    seen = {kind: "loads" if says == "loads" else "refused" for kind, (_, says) in KINDS.items()}
    assert len(seen) >= 25
    assert dict(rows) == seen and len(rows) == len(seen)


def test_raw_and_averaged_weights_are_named_and_chosen(tmp_path: Path) -> None:
    raw, ema = network(seed=1), network(seed=2)
    path = tmp_path / "net.pth"
    torch.save({"state_dict": raw.state_dict(), "ema_state_dict": ema.state_dict()}, path)
    one = found(path)
    assert one.notes[0] == (
        "holds raw weights (state_dict) and averaged ones (ema_state_dict): the averaged ones are "
        "used; `weights: raw` takes the others"
    )
    for which, model in (("raw", raw), ("ema", ema)):
        chosen = found(path, weights=which).network
        assert chosen is not None
        same(chosen, model)
    torch.save({"state_dict": raw.state_dict()}, path)
    with pytest.raises(BadInput, match="holds no averaged weights, only state_dict; leave"):
        found(path, weights="ema")


def test_two_networks_below_names_in_one_state_dict(tmp_path: Path) -> None:
    raw, ema = network(seed=1), network(seed=2)
    path = tmp_path / "net.pth"
    state = {**below("net.", raw.state_dict()), **below("ema_model.", ema.state_dict())}
    torch.save({"state_dict": state}, path)
    chosen = found(path)
    assert chosen.network is not None
    same(chosen.network, ema)
    two = {**below("left.", raw.state_dict()), **below("right.", ema.state_dict())}
    torch.save(two, path)
    assert found(path).notes[0] == "further networks in it are not used: right"
    momentum = {**below("base_encoder.", raw.state_dict()),
                **below("momentum_encoder.", ema.state_dict())}  # fmt: skip
    torch.save({"state_dict": momentum}, path)
    assert "the raw ones are used" in foreign.read(path).notes[0]


def test_what_is_said_on_the_way(tmp_path: Path) -> None:
    def notes(kind: str) -> str:
        path = tmp_path / "net.pth"
        KINDS[kind][0](path)
        return "\n".join(found(path).notes)

    assert "passed over 4 tensors: center_loss.centers" in notes(
        "tensors of losses and projections"
    )
    assert "masks of torch.nn.utils.prune are multiplied in" in notes("torch.nn.utils.prune")
    assert "its widths are not those of resnet8: they are read off" in notes("pruned widths")
    assert "biases of 9 convolutions are put into the batch norm" in notes(
        "convolutions with biases"
    )
    assert "without batch statistics" in notes("EMA without batch statistics")
    assert "batch norm before its last layer is folded" in notes("fastai, one linear layer")
    said = notes("a normalizing layer in front")
    assert "mean 0.4, 0.5, 0.6 and std 0.2, 0.3, 0.4 are those of a layer in the file" in said
    said = notes("kuangliu")
    assert "no one says how its images are prepared: mean 0.502 and std 0.251 are assumed" in said
    assert "--preprocess" in said
    path = tmp_path / "net.pth"
    assert found(path, mean=(0.5,), std=(0.5,)).notes == ()


def test_a_network_of_transformers(tmp_path: Path) -> None:
    """Of their own class, so that names and order of layers are theirs."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], layer_type="basic",
        num_labels=CLASSES,
    )  # fmt: skip
    theirs = transformers.ResNetForImageClassification(config).eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    ours = found(tmp_path / "model.safetensors").network
    assert ours is not None and ours.spec.stem == "imagenet"
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x).logits, rtol=1e-4, atol=1e-5)


def test_what_fits_nothing_is_compared_with_the_nearest_three(tmp_path: Path) -> None:
    state = network().state_dict()
    del state["bn1.bias"]
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"][:, :3].clone()
    state["layer2.0.attention.weight"] = torch.ones(3)
    path = tmp_path / "net.pth"
    torch.save(state, path)
    with pytest.raises(BadInput) as raised:
        found(path)
    said = str(raised.value)
    assert "fits no network; nearest are resnet8 (the file lacks bn1.bias, has " in said
    assert "differs in the shape of layer1.0.conv1.weight" in said
    assert said.count("(the file ") == 3 and "no architecture" not in said


def test_a_named_architecture_of_other_widths_is_a_pruned_one(tmp_path: Path) -> None:
    model = narrowed(tmp_path / "net.pth")
    wanted = Wanted("resnet8", CLASSES, None, PX)
    network = checkpoint.fetch(str(tmp_path / "net.pth"), wanted, tmp_path).network
    assert network is not None and network.spec.name == "resnet8"
    same(network, model)
    with pytest.raises(BadInput, match="is not a resnet20: it lacks"):
        checkpoint.fetch(str(tmp_path / "net.pth"), Wanted("resnet20", CLASSES, None, PX), tmp_path)


def archive(path: Path, pickled: bytes, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/data.pkl", pickled)
        for name, content in entries.items():
            file.writestr(f"net/data/{name}", content)


STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
)


def tensor(size: bytes, stride: bytes) -> bytes:
    """{"conv1.weight": a tensor of one block of four numbers}."""
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE
    return (b"\x80\x02}X\x0c\x00\x00\x00conv1.weight" + call + b"K\x00" + size + stride
            + b"\x89}tRs.")  # fmt: skip


@pytest.mark.parametrize(
    ("pickled", "says"),
    [
        (tensor(b"K\x05\x85", b"K\x01\x85"), "has only 4 numbers"),
        (tensor(b"K\x02\x85", b"K\x09\x85"), "out of bounds"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x01\x00\x00\x00xK\x01s\x86b.",
         "it changes what isn't its own"),
        (b"\x80\x02}X\x01\x00\x00\x00xK\x01sr\xff\xff\xff\x7f.", "no tensors"),  # a memo of 2^31
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "os.system, and no tensors"),
        (b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.", "builtins.eval, and no tensors"),
        (b"\x80\x04\x8c\x05torch\x8c\x04load\x93)R.", "torch.load, and no tensors"),
    ],
)  # fmt: skip
def test_a_hostile_pickle(tmp_path: Path, pickled: bytes, says: str) -> None:
    archive(tmp_path / "net.pth", pickled, **{"0": bytes(16)})
    with pytest.raises(BadInput, match=re.escape(says)):
        found(tmp_path / "net.pth")


def test_a_network_that_contains_itself(tmp_path: Path) -> None:
    """2^60 paths lead through it."""
    inner: dict[str, Any] = {"model": {}}
    for _ in range(60):
        inner = {"model": inner, "net": inner, "ema": inner}
    inner["self"] = inner["state_dict"] = inner
    torch.save(inner, tmp_path / "net.pth")
    with pytest.raises(BadInput, match="no tensors"):
        found(tmp_path / "net.pth")


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    state = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(4)}, state)
    with zipfile.ZipFile(state) as old, \
            zipfile.ZipFile(tmp_path / "net.pth", "w", zipfile.ZIP_DEFLATED) as new:  # fmt: skip
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(BadInput, match=r"compressed, which torch\.save never does"):
        found(tmp_path / "net.pth")


@pytest.mark.parametrize("std", [(0.0,) * 3, (-0.5,) * 3, (float("nan"),) * 3])
def test_a_broken_normalizing_layer_is_no_preprocessing(
    tmp_path: Path, std: tuple[float, ...]
) -> None:
    state = {"normalize.mean": torch.full((3,), 0.5), "normalize.std": torch.tensor(std)}
    torch.save({**network().state_dict(), **state}, tmp_path / "net.pth")
    with pytest.raises(BadInput, match="normalize"):
        found(tmp_path / "net.pth")


def test_a_teacher_of_another_shape_is_no_average(tmp_path: Path) -> None:
    """A distillation's checkpoint gives its student, and says that there is another network."""
    student, teacher = network(), network("resnet14", seed=5)
    torch.save({"student": student.state_dict(), "teacher": teacher.state_dict()},
               tmp_path / "net.pth")  # fmt: skip
    one = foreign.read(tmp_path / "net.pth")
    assert any("teacher" in note and "not used" in note for note in one.notes)
    same(found(tmp_path / "net.pth").network, student)  # type: ignore[arg-type]
    same(found(tmp_path / "net.pth", weights="ema").network, teacher)  # type: ignore[arg-type]


def test_averaged_parameters_get_the_statistics_of_a_wrapped_network(tmp_path: Path) -> None:
    raw, averaged = network(), network(seed=7)
    statistics = {k: v for k, v in raw.state_dict().items() if "running" in k}
    averaged.load_state_dict(statistics, strict=False)
    torch.save({"state_dict": {f"module.{k}": v for k, v in raw.state_dict().items()},
                "ema": dict(averaged.named_parameters())}, tmp_path / "net.pth")  # fmt: skip
    same(found(tmp_path / "net.pth").network, averaged)  # type: ignore[arg-type]
