"""Checkpoints: ours, other people's, broken ones and hostile ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from conftest import network
from safetensors.torch import save_file

from edgeres.errors import BadInput
from edgeres.models import recognition, resnet, spec, weights

SPEC = spec.parse("resnet20-A", 10, spec.default_preprocess(32))


def akamaster_keys(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict as akamaster/pytorch_resnet_cifar10 names it."""
    state = {k: v for k, v in model.state_dict().items() if "downsample" not in k}
    return {f"module.{k.replace('fc.', 'linear.')}": v for k, v in state.items()}


def test_save_and_load_give_the_same_bits_and_bytes(tmp_path: Path) -> None:
    model = network("resnet8")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        weights.save(tmp_path / name, model)
    loaded = weights.load(tmp_path / "a")
    x = torch.randn(2, 3, 16, 16)
    assert loaded.spec == model.spec
    assert torch.equal(loaded(x), model(x))
    for file in ("spec.json", "weights.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_akamaster_checkpoint(tmp_path: Path) -> None:
    model = network("resnet20-A", 32)
    path = tmp_path / "net.th"
    torch.save({"state_dict": akamaster_keys(model), "best_prec1": 91.7}, path)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(weights.from_checkpoint(path, SPEC)(x), model(x))


def test_safetensors_checkpoint(tmp_path: Path) -> None:
    model = network("resnet20-A", 32)
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(weights.from_checkpoint(tmp_path / "net.safetensors", SPEC)(x), model(x))


class _Canary:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save({"state_dict": _Canary(canary)}, tmp_path / "evil.pth")
    with pytest.raises(BadInput, match="never run"):
        weights.from_checkpoint(tmp_path / "evil.pth", SPEC)
    assert not canary.exists()


def test_wrong_class_count_is_named(tmp_path: Path) -> None:
    torch.save(network("resnet20-A", 32, classes=100).state_dict(), tmp_path / "net.pth")
    with pytest.raises(BadInput, match="has 100 classes but the data have 10"):
        weights.from_checkpoint(tmp_path / "net.pth", SPEC)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "not a readable checkpoint|damaged"), (b"garbage" * 100, "damaged|not a readable"),
     (None, "no such checkpoint")],
)  # fmt: skip
def test_broken_files(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "net.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=says):
        weights.from_checkpoint(path, SPEC)


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(network("resnet20-A", 32).state_dict(), path)
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(BadInput, match=r"net\.pth"):
        weights.from_checkpoint(path, SPEC)


def test_another_architecture_and_broken_numbers(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(network("resnet8", 32).state_dict(), path)
    with pytest.raises(BadInput, match="is not a resnet20-A"):
        weights.from_checkpoint(path, SPEC)
    state = network("resnet20-A", 32).state_dict()
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, path)
    with pytest.raises(BadInput, match=r"conv1\.weight holds NaN"):
        weights.from_checkpoint(path, SPEC)
    torch.save([1, 2, 3], path)
    with pytest.raises(BadInput, match="holds a list, and no tensors"):
        weights.from_checkpoint(path, SPEC)


@pytest.mark.parametrize("key", ["bn1.running_var", "bn1.running_mean", "layer1.0.bn1.weight",
                                 "layer2.0.bn1.bias", "conv1.weight", "fc.bias"])  # fmt: skip
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 3e38, -1e20, -1e-6])
def test_numbers_that_no_training_gives(key: str, value: float, tmp_path: Path) -> None:
    state = network("resnet20-A", 32).state_dict()
    state[key].view(-1)[1] = value
    torch.save(state, tmp_path / "net.pth")
    if value == -1e-6 and "var" not in key:
        weights.from_checkpoint(tmp_path / "net.pth", SPEC)
        return
    says = f"net.pth: {key} holds .*; the checkpoint is broken"
    with pytest.raises(BadInput, match=says):
        weights.from_checkpoint(tmp_path / "net.pth", SPEC)


def test_a_variance_of_zero_is_a_channel_that_is_off() -> None:
    model = network("resnet8")
    state = model.state_dict()
    state["bn1.running_var"][0] = 0.0
    assert weights.fill(model.spec, state, "net").bn1.running_var[0] == 0


def kuangliu_keys(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict as kuangliu/pytorch-cifar names it, compiled and wrapped by its trainer."""
    renamed = {k.replace("downsample", "shortcut").replace("fc.", "linear."): v
               for k, v in model.state_dict().items()}  # fmt: skip
    return {f"_orig_mod.module.{k}": v for k, v in renamed.items()}


def test_names_of_other_families_and_wrappers(tmp_path: Path) -> None:
    model = network("resnet20", 32)
    torch.save({"net": {"state_dict": kuangliu_keys(model)}, "epoch": 3}, tmp_path / "net.pt")
    x = torch.randn(2, 3, 32, 32)
    spec_b = spec.parse("resnet20", 10, spec.default_preprocess(32))
    assert torch.equal(weights.from_checkpoint(tmp_path / "net.pt", spec_b)(x), model(x))


@pytest.mark.parametrize("name", ["resnet20-A", "resnet20", "resnet32-w0.5", "resnet18", "resnet34",
                                  "resnet26", "resnet50-D", "wrn-16-4", "resnext29-8x64d",
                                  "resnet50"])  # fmt: skip
def test_an_architecture_is_recognized(name: str) -> None:
    preprocess = spec.default_preprocess(32)
    with torch.device("meta"):
        state = resnet.ResNet(spec.parse(name, 7, preprocess)).state_dict()
    if name.endswith("-A"):
        state = {k: v for k, v in state.items() if "downsample" not in k}
    assert recognition.described(state, None, 7, preprocess)[0].name == name


def test_a_wrong_architecture_names_the_keys_and_the_right_one(tmp_path: Path) -> None:
    torch.save({"state_dict": akamaster_keys(network("resnet32-A", 32))}, tmp_path / "net.th")
    says = (
        r"is not a resnet20-A: it has layer1\.3\.conv1\.weight, .* and \d+ more; it is a resnet32-A"
    )
    with pytest.raises(BadInput, match=says):
        weights.from_checkpoint(tmp_path / "net.th", SPEC)
    state = network("resnet20-A", 32).state_dict()
    del state["bn1.bias"], state["layer1.0.bn1.bias"]
    torch.save(state, tmp_path / "part.pth")
    says = r"it lacks bn1\.bias, layer1\.0\.bn1\.bias; next are resnet20 \(the file lacks"
    with pytest.raises(BadInput, match=says):
        weights.from_checkpoint(tmp_path / "part.pth", SPEC)


def test_a_pipe_in_place_of_weights_is_refused(tmp_path: Path) -> None:
    weights.save(tmp_path, resnet.build(spec.parse("resnet8", 4, spec.default_preprocess(8))))
    for name in ("weights.safetensors", "spec.json"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(BadInput, match=f"{name}: is a pipe"):
            weights.load(tmp_path)
