"""What makes the student smaller: pruning and quantization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgeres import quantities
from edgeres.errors import BadInput
from edgeres.recipe.sections.fields import (
    _UNIQUE,
    Alpha,
    Section,
    Share,
    Temperature,
    Text,
    _unique,
)
from edgeres.recipe.sections.training import Cache, QatSection, RecoverSection

BUDGETS = ("macs", "params", "size", "latency")
"""Of pruning; a recipe says one of them."""


def _share_to_keep(value: float) -> float:
    if not 0 < value < 1:
        raise PydanticCustomError(
            "share", "{value} is no share to keep; write one between 0 and 1, e.g. 0.5",
            {"value": f"{value:g}"},
        )  # fmt: skip
    return value


def _with_unit(parse: Callable[[str], float]) -> BeforeValidator:
    def check(value: object) -> object:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = f"{value:g}"
        if isinstance(value, str):
            try:
                parse(value)
            except BadInput as error:
                raise PydanticCustomError("unit", "{said}", {"said": str(error)}) from None
        return value

    return BeforeValidator(check)


_OPEN = {"exclusiveMinimum": 0, "exclusiveMaximum": 1}
ShareToKeep = Annotated[float, Field(json_schema_extra=_OPEN), AfterValidator(_share_to_keep)]


class PruneSection(Section):
    """Channels and blocks are removed to a budget, then the network is fine-tuned."""

    macs: Annotated[
        ShareToKeep | None, Field(description="Budget: share of multiply-accumulates to keep.")
    ] = None
    params: Annotated[
        ShareToKeep | None, Field(description="Budget: share of parameters to keep.")
    ] = None
    size: Annotated[
        Annotated[str, _with_unit(quantities.size)] | None,
        Field(description="Budget: size of the int8 file, e.g. 90KB."),
    ] = None
    latency: Annotated[
        Annotated[str, _with_unit(quantities.time_or_share)] | None,
        Field(
            description="Budget: measured latency of the int8 file on `device`, e.g. 5ms; 0.5x is "
            "half of the unpruned network's."
        ),
    ] = None
    device: Annotated[Text, Field(description="Where a latency budget is measured.")] = "host"
    target: Annotated[
        Literal["tflite-int8", "onnx-int8"],
        Field(description="The file that a size or latency budget is about."),
    ] = "tflite-int8"
    blocks: Annotated[
        int, Field(ge=0, le=1000, description="Whole residual blocks to leave out first.")
    ] = 0
    steps: Annotated[
        int,
        Field(ge=1, le=100, description="Prune in so many steps; each gets a part of the epochs."),
    ] = 1
    round_to: Annotated[
        int, Field(ge=1, le=256, description="Channel counts are multiples of this.")
    ] = 8
    criterion: Annotated[
        Literal["group-magnitude", "bn-scale", "taylor", "group-sparsity"],
        Field(description="What makes a channel matter; group-sparsity trains for it first."),
    ] = "group-magnitude"
    sparsity: Annotated[
        float, Field(gt=0, le=1, description="group-sparsity: strength, like a weight decay.")
    ] = 5e-4
    sparse_epochs: Annotated[
        Annotated[int, Field(ge=1, le=100_000)] | None,
        Field(description="group-sparsity: epochs before pruning; null is as many as after."),
    ] = None
    max_drop: Annotated[
        Annotated[float, Field(ge=-100, le=100)] | None,
        Field(
            description="Points of test top-1 that may be lost; more ends the run with exit code "
            "1. null: any."
        ),
    ] = 2.0
    temperature: Temperature = 4.0
    alpha: Alpha = 0.9
    cache: Cache = None
    train: RecoverSection = RecoverSection()

    @model_validator(mode="after")
    def _one_budget(self) -> PruneSection:
        said = [name for name in BUDGETS if getattr(self, name) is not None]
        if not said and not self.blocks:
            raise PydanticCustomError(
                "missing_budget", "has no budget; add one, e.g. `macs: 0.5` (or params, size, "
                "latency)",
            )  # fmt: skip
        if len(said) > 1:
            raise PydanticCustomError(
                "budgets", "has the budgets {said}; keep one and set the others to null",
                {"said": " and ".join(said)},
            )  # fmt: skip
        return self


class QuantizeSection(Section):
    """The network gets int8 weights and activations."""

    method: Annotated[
        Literal["qat", "ptq", "file"],
        Field(
            description="qat trains with quantization; ptq calibrates only; file keeps the scales "
            "of the quantized file that the network came from."
        ),
    ] = "qat"
    scheme: Annotated[
        Literal["w8a8", "w8a8-portable", "w8a8-symmetric", "w8a16", "w4a8"],
        Field(
            description="int8 weights per channel; activations per tensor: int8 (portable: with "
            "scales of which all integer kernels make the same codes), int8 with zero point 0, or "
            "int16. w4a8: int4 weights, activations as w8a8."
        ),
    ] = "w8a8"
    keep_8bit: Annotated[
        tuple[Text, ...],
        Field(
            description="w4a8: layers whose weights have 8 bits; regular expressions, or `ends`, "
            "those that read the images and the last one.",
            json_schema_extra=_UNIQUE,
        ),
        AfterValidator(_unique),
    ] = ("ends",)
    max_drop: Annotated[
        Annotated[float, Field(ge=0, le=100)] | None,
        Field(
            description="w4a8: as many layers have 4 bits as lose no more than these points of "
            "validation top-1. null: any."
        ),
    ] = None
    max_kb: Annotated[
        Annotated[float, Field(gt=0)] | None,
        Field(
            description="w4a8: largest size of weights, biases and scales in 1000 bytes; without "
            "max_drop, no more layers have 4 bits than it takes. null: any."
        ),
    ] = None
    ranges: Annotated[
        Literal["min-max", "percentile", "mse", "entropy"],
        Field(description="How calibration chooses what range of a tensor gets codes."),
    ] = "mse"
    exclude: Annotated[
        tuple[Text, ...],
        Field(
            description="Regular expressions of layers that stay float, e.g. layer1\\..*",
            json_schema_extra=_UNIQUE,
        ),
        AfterValidator(_unique),
    ] = ()
    input: Annotated[
        Literal["any", "pixels"],
        Field(
            description="pixels: mean and std go into the first layer, so that int8 files take "
            "raw bytes; export.input: pixels sets it."
        ),
    ] = "any"
    learned_steps: Annotated[
        bool, Field(description="qat: learn the activations' step sizes (LSQ).")
    ] = False
    temperature: Temperature = 4.0
    alpha: Alpha = 0.5
    cache: Cache = None
    freeze_observers: Annotated[
        Share, Field(description="Share of the epochs after which ranges stay fixed.")
    ] = 0.5
    freeze_batchnorm: Annotated[
        Share, Field(description="Share of the epochs after which BatchNorm stays fixed.")
    ] = 0.7
    train: QatSection = QatSection()

    @model_validator(mode="after")
    def _of_four_bits(self) -> QuantizeSection:
        said = [name for name in ("keep_8bit", "max_drop", "max_kb")
                if getattr(self, name) != type(self).model_fields[name].default]  # fmt: skip
        if said and self.scheme != "w4a8":
            raise PydanticCustomError(
                "four_bits", "{said} is for scheme w4a8, and the scheme is {scheme}",
                {"said": " and ".join(said), "scheme": self.scheme},
            )  # fmt: skip
        return self
