"""What is made of the finished network: files, checks, measurements, the report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgeres.recipe.sections.fields import (
    _UNIQUE,
    Limit,
    Names,
    Section,
    Share,
    Text,
    _unique,
)


class ExportSection(Section):
    """Files for the runtimes on the devices."""

    targets: Annotated[
        Names, Field(description="E.g. tflite-int8; `edgeres list targets` shows them all.")
    ]
    input: Annotated[
        Literal["any", "pixels"],
        Field(description="pixels: int8 files take raw bytes; the first layer has mean and std."),
    ] = "any"
    gpu: Annotated[
        bool,
        Field(description="TFLite int8: the form that LiteRT's GPU computes rightly."),
    ] = False
    npu: Annotated[
        tuple[Text, ...],
        AfterValidator(_unique),
        Field(
            description="What ethosu-, qnn- and rknn-int8 are compiled for, e.g. ethos-u55-128.",
            json_schema_extra=_UNIQUE,
        ),
    ] = ()
    licence: Annotated[Text | None, Field(description="Goes into the files, e.g. Apache-2.0.")] = (
        None
    )


class VerifySection(Section):
    """Each file must answer like the network it was written from."""

    samples: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(description="How many test images; null is the whole test set."),
    ] = None
    agreement: Annotated[
        Share, Field(description="Least share of images with the same top-1 answer.")
    ] = 0.99
    layer_codes: Annotated[
        float,
        Field(ge=0, le=255, description="int8: largest difference of a layer from its own inputs."),
    ] = 1.0
    layer_samples: Annotated[
        int, Field(ge=1, le=1000, description="How many of the images the layer check uses.")
    ] = 8
    worst_codes: Annotated[
        float, Field(ge=0, le=255, description="int8 files: largest difference, in output codes.")
    ] = 8.0
    mean_codes: Annotated[
        float, Field(ge=0, le=255, description="int8 files: mean difference, in output codes.")
    ] = 1.0
    float_tolerance: Annotated[
        float, Field(ge=0, le=1e3, description="float32 files: largest difference of a logit.")
    ] = 1e-2
    half_tolerance: Annotated[
        float, Field(ge=0, le=1e3, description="float16 files: largest difference of a logit.")
    ] = 0.1
    on: Annotated[
        tuple[Text, ...],
        AfterValidator(_unique),
        Field(
            description="Other runtimes that are asked, too; `edgeres list runtimes`.",
            json_schema_extra=_UNIQUE,
        ),
    ] = ()
    on_samples: Annotated[
        int, Field(ge=1, description="How many test images each of those answers, at most.")
    ] = 1000
    prove: Annotated[
        bool,
        Field(
            description="Integer kernels of all kinds must make the same codes for every image: "
            "each sum that a layer can have goes through each. Scheme w8a8-portable holds it."
        ),
    ] = False


class BenchmarkSection(Section):
    """Latency, memory and accuracy of each file, measured on devices."""

    devices: Annotated[Names, Field(description="`edgeres list devices` shows them.")] = ("host",)
    preset: Annotated[
        Literal["quick", "normal", "submission"],
        Field(description="How long is measured; numbers to publish need `submission`."),
    ] = "quick"
    threads: Annotated[
        int | None,
        Field(
            ge=1,
            le=256,
            description="CPU threads of the runtime; null is what a device's profile says.",
        ),
    ] = None
    accuracy: Annotated[bool, Field(description="Also run the test set on the device.")] = True


class LimitsSection(Section):
    """Limits for a file on a device; what isn't named means every one."""

    target: Annotated[Text | None, Field(description="E.g. tflite-int8.")] = None
    device: Annotated[Text | None, Field(description="A device's name.")] = None
    latency_median_ms: Limit = None
    latency_p90_ms: Limit = None
    latency_p95_ms: Limit = None
    latency_p99_ms: Limit = None
    cold_start_ms: Limit = None
    memory_mb: Limit = None
    size_kb: Limit = None
    energy_mj: Limit = None
    accuracy: Annotated[Share | None, Field(description="At least; top-1 as a share.")] = None
    accuracy_drop_points: Annotated[
        Annotated[float, Field(ge=-100, le=100)] | None,
        Field(description="At most; against the float network, in points of top-1."),
    ] = None
    agreement: Annotated[
        Share | None, Field(description="At least; same answers as the trained graph, a share.")
    ] = None

    @model_validator(mode="after")
    def _some_limit(self) -> LimitsSection:
        if not self.model_dump(exclude={"target", "device"}, exclude_none=True):
            raise PydanticCustomError("conflict", "says no limit; see docs/budgets.md")
        return self


class BudgetsSection(Section):
    """Limits that the measured files have to keep; a miss fails the run, with exit code 1."""

    limits: Annotated[
        tuple[LimitsSection, ...],
        Field(min_length=1, description="Each for the target and device it names."),
    ]
    allow_unmeasurable: Annotated[
        tuple[Text, ...],
        Field(description="Measures that may go unmeasured.", json_schema_extra=_UNIQUE),
    ] = ()

    allow_invalid: Annotated[
        bool,
        Field(description="Judge the times of measurements that are marked invalid, too."),
    ] = False

    @model_validator(mode="after")
    def _known_measures(self) -> BudgetsSection:
        for name in self.allow_unmeasurable:
            if name not in LimitsSection.model_fields or name in ("target", "device"):
                raise PydanticCustomError(
                    "conflict", "there is no measure '{name}'; see docs/budgets.md", {"name": name}
                )
        return self


class ReportSection(Section):
    """One page about the run, as HTML and JSON."""

    title: Annotated[Text | None, Field(description="null is the recipe's name.")] = None
