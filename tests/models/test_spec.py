"""Names to numbers and back."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edgeres.errors import BadInput
from edgeres.models import spec
from edgeres.models.resnet import complexity
from edgeres.types import Preprocess

IMAGENET = Preprocess(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "parameters"),
    # torchvision 0.20's documented parameter counts
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032),
     ("resnet101", 44_549_160), ("resnet152", 60_192_808)],
)  # fmt: skip
def test_imagenet_nets_have_torchvisions_size(name: str, parameters: int) -> None:
    assert complexity(spec.parse(name, 1000, IMAGENET))[0] == parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    # akamaster/pytorch_resnet_cifar10's table (option A)
    [("resnet20-A", 269_722), ("resnet32-A", 464_154), ("resnet44-A", 658_586),
     ("resnet56-A", 853_018), ("resnet110-A", 1_727_962)],
)  # fmt: skip
def test_cifar_nets_have_the_published_size(name: str, parameters: int) -> None:
    assert complexity(spec.parse(name, 10, spec.default_preprocess(32)))[0] == parameters


def test_resnet50_macs_at_224() -> None:
    macs = complexity(spec.parse("resnet50", 1000, IMAGENET))[1]
    assert macs == pytest.approx(4.09e9, rel=0.01)  # torchvision: 4.09 GFLOPS (multiply-adds)


def test_width_multiplier_scales_every_layer_in_multiples_of_eight() -> None:
    half = spec.parse("resnet18-w0.5", 10, spec.default_preprocess(32))
    assert half.stem_width == 32
    assert [stage[0].widths for stage in half.stages] == [
        (32, 32),
        (64, 64),
        (128, 128),
        (256, 256),
    ]
    odd = spec.parse("resnet18-w0.3", 10, spec.default_preprocess(32))
    assert all(w % 8 == 0 for stage in odd.stages for block in stage for w in block.widths)


def test_small_images_get_the_small_stem() -> None:
    assert spec.parse("resnet18", 10, spec.default_preprocess(32)).stem == "small"
    assert spec.parse("resnet18", 10, spec.default_preprocess(96)).stem == "imagenet"


@pytest.mark.parametrize("name", ["resnet50", "resnet20-A", "resnet8-w2", "resnet18-w0.25"])
def test_json_round_trip(name: str) -> None:
    one = spec.parse(name, 7, spec.default_preprocess(32))
    assert spec.from_json(json.loads(json.dumps(spec.to_json(one)))) == one


@pytest.mark.parametrize(
    ("name", "says"),
    [("resnet51", "did you mean 'resnet5"), ("vgg16", "unknown model 'vgg16'"),
     ("resnet18-w99", "between 0.05 and 8"), ("resnet50-A", "drop '-A'"), ("", "unknown model")],
)  # fmt: skip
def test_wrong_names_say_what_is_known(name: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        spec.parse(name, 10, spec.default_preprocess(32))


def test_a_newer_schema_is_refused() -> None:
    document = spec.to_json(spec.parse("resnet8", 10, spec.default_preprocess(16)))
    with pytest.raises(BadInput, match="upgrade"):
        spec.from_json({**document, "schema": 2})
    with pytest.raises(BadInput, match="not a model description"):
        spec.from_json({"schema": 1, "family": "resnet"})


def test_default_preprocess_is_pixel_exact() -> None:
    exact = spec.default_preprocess(16).input_quantization()
    assert exact is not None
    assert (exact.zero_point, exact.dtype) == ((0,), "int8")
    per_channel = dataclasses.replace(spec.default_preprocess(16), mean=(0.4, 0.5, 0.6))
    assert per_channel.input_quantization() is None
