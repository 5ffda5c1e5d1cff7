"""Names to numbers and back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from edgeres import listing
from edgeres.errors import BadInput
from edgeres.models import spec
from edgeres.models.modules import complexity
from edgeres.types import Preprocess

IMAGENET = Preprocess(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "parameters"),
    # torchvision 0.20's documented parameter counts
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032),
     ("resnet101", 44_549_160), ("resnet152", 60_192_808), ("wide_resnet50_2", 68_883_240),
     ("resnext50_32x4d", 25_028_904), ("resnext101_32x8d", 88_791_336),
     # timm's model pages: 16.0, 64.67, 28.09, 11.78 M
     ("resnet26", 15_995_176), ("resnet200", 64_673_832), ("resnet50-se", 28_088_024),
     ("seresnet18", 11_779_624)],
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


@pytest.mark.parametrize(
    ("name", "millions"),
    # Zagoruyko and Komodakis 2016, tables 4 and 5; Xie et al. 2017, table 7
    [("wrn-16-4", 2.7), ("wrn-40-2", 2.2), ("wrn-28-10", 36.5), ("resnext29-8x64d", 34.4)],
)
def test_wide_and_grouped_nets_have_the_published_size(name: str, millions: float) -> None:
    parameters = complexity(spec.parse(name, 10, spec.default_preprocess(32)))[0] / 1e6
    assert parameters == pytest.approx(millions, abs=0.05)


def test_multipliers_and_options_combine_in_one_name() -> None:
    one = spec.parse("resnet26-se-w0.5-d0.5", 10, spec.default_preprocess(32))
    assert [len(stage) for stage in one.stages] == [1, 1, 1, 1]
    assert one.stages[3][0].widths == (256, 256, 1024)
    assert one.stages[3][0].squeeze == 64
    same = spec.parse("seresnet26-d0.5-w0.5", 10, spec.default_preprocess(32))
    assert same.stages == one.stages
    deeper = spec.parse("resnet20-d1.5-mobile", 10, spec.default_preprocess(32))
    assert [len(stage) for stage in deeper.stages] == [5, 5, 5]
    assert deeper.stages[1][0].widths == (16, 32, 32, 32)


@pytest.mark.parametrize(
    "name",
    ["resnet50", "resnet20-A", "resnet8-w2", "resnet18-w0.25", "wrn-16-4", "resnext29-8x16d-se",
     "resnet8-mobile-D"],
)  # fmt: skip
def test_json_round_trip(name: str) -> None:
    one = spec.parse(name, 7, spec.default_preprocess(32))
    assert spec.from_json(json.loads(json.dumps(spec.to_json(one)))) == one


@pytest.mark.parametrize(
    ("name", "says"),
    [("resnet51", "did you mean 'resnet5"), ("vgg16", "unknown model 'vgg16'"),
     ("resnet18-w99", "between 0.05 and 8"), ("resnet50-A", "drop '-A'"), ("", "unknown model"),
     ("resnet20-d0", "depth multiplier"), ("resnet50-mobile", "nets of basic blocks"),
     ("resnet20-A-D", "not both"), ("resnet20-w2-w3", "twice"), ("wrn-17-4", "unknown model"),
     ("resnext29-0x4d", "out of range"), ("resnext29-8x0d", "at least 1"),
     ("resnet99999998", "unknown model")],
)  # fmt: skip
def test_wrong_names_say_what_is_known(name: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        spec.parse(name, 10, spec.default_preprocess(32))


def test_a_newer_schema_is_refused() -> None:
    document = spec.to_json(spec.parse("resnet8", 10, spec.default_preprocess(16)))
    with pytest.raises(BadInput, match="upgrade"):
        spec.from_json({**document, "schema": 3})
    with pytest.raises(BadInput, match="not a model description"):
        spec.from_json({"schema": 1, "family": "resnet"})


def test_descriptions_of_the_first_schema_are_still_read() -> None:
    one = spec.parse("resnet20-A", 10, spec.default_preprocess(32))
    new = json.loads(json.dumps(spec.to_json(one)))
    kept = ("widths", "stride", "shortcut")
    stages = [[{k: block[k] for k in kept} for block in stage] for stage in new["stages"]]
    old = new | {"schema": 1, "stages": stages}
    del old["preact"]
    assert spec.from_json(old) == one


def test_pooled_shortcuts_need_sizes_that_can_be_halved() -> None:
    spec.parse("resnet50-D", 10, spec.default_preprocess(224))
    with pytest.raises(BadInput, match="25 pixels can't be halved"):
        spec.parse("resnet20-D", 10, spec.default_preprocess(50))


def test_default_preprocess_is_pixel_exact() -> None:
    exact = spec.default_preprocess(16).input_quantization()
    assert exact is not None
    assert (exact.zero_point, exact.dtype) == ((0,), "int8")
    per_channel = dataclasses.replace(spec.default_preprocess(16), mean=(0.4, 0.5, 0.6))
    assert per_channel.input_quantization() is None


def test_the_list_of_models_fits_a_terminal_and_holds_numbers() -> None:
    rows = {row["model"]: row for row in listing.rows("models", Path())}
    assert set(rows) == set(spec.names())
    assert rows["resnet50"]["parameters"] == 25_557_032
    assert rows["resnet50"]["int8_bytes"] == pytest.approx(25.6e6 * 1.03, rel=0.01)
    lines = listing.text(list(rows.values())).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split() == ["resnet50", "224", "px", "1000", "25.56", "M", "4,089", "M",
                                "26,315.5", "kB"] for line in lines)  # fmt: skip
