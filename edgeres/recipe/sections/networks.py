"""The teacher and the student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgeres import preprocessing
from edgeres.recipe.sections.fields import (
    _UNIQUE,
    Alpha,
    Mean,
    Names,
    Section,
    Share,
    Std,
    Temperature,
    Text,
    _unique,
)
from edgeres.recipe.sections.training import (
    FINE_TUNING,
    Cache,
    CacheSection,
    Device,
    MixSection,
    TeacherTrainSection,
    TrainSection,
)


class HeadSection(Section):
    """How the last layer is trained that replaces one of other classes, of a network with weights.

    It is trained alone first, and the rest with it for the epochs of `train`.
    """

    replace: Annotated[
        Literal["other", "always"],
        Field(
            description="other: where its classes aren't as many as the data's; always: also where "
            "they are as many, but others."
        ),
    ] = "other"

    epochs: Annotated[
        int, Field(ge=0, le=100_000, description="In which it alone is trained, at first.")
    ] = 2
    rate: Annotated[
        float, Field(gt=0, le=1e4, description="Its learning rate, as a multiple of the others'.")
    ] = 10.0


class NetworkSection(Section):
    """What a network starts as."""

    checkpoint: Annotated[
        Text | None,
        Field(
            description="Its weights: a .pth, .th or .safetensors file below the current folder or "
            "absolute; null starts from random ones. If its classes aren't the data's, its last "
            "layer is replaced, and it is trained."
        ),
    ] = None
    weights: Annotated[
        Literal["raw", "ema"] | None,
        Field(
            description="Which, where a checkpoint holds both: the trained ones or their running "
            "average; null is the average, but not a momentum encoder's."
        ),
    ] = None
    preprocess: Annotated[
        Literal["imagenet", "cifar", "half", "unit", "pixels", "edgeres"] | None,
        Field(description="mean and std by name; half: -1 to 1, unit: 0 to 1, pixels: 0 to 255."),
    ] = None
    new_head: HeadSection = HeadSection()
    mean: Mean = None
    std: Std = None
    zero_init_residual: Annotated[
        bool, Field(description="Start each residual block as the identity.")
    ] = False
    skip_scale: Annotated[
        bool, Field(description="Start each block's convolutions at 1/L of their size, L blocks.")
    ] = False
    stochastic_depth: Annotated[
        float,
        Field(ge=0, lt=1, description="How often training leaves out the last block's convolutions."
              " Earlier blocks' less, in proportion."),
    ] = 0.0  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _gently(cls, written: object) -> object:
        """Trained weights get a lower learning rate, unless one is written."""
        if not isinstance(written, Mapping) or not cls.starts_trained(written):
            return written
        train = written.get("train", {})
        if not isinstance(train, Mapping):
            return written
        return {**written, "train": {"learning_rate": FINE_TUNING, **train}}

    @staticmethod
    def starts_trained(written: Mapping[str, object]) -> bool:
        """Whether a section, as it is written, names weights."""
        return written.get("checkpoint") is not None

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise PydanticCustomError("conflict", "`mean` and `std` go together; give both")
        if self.preprocess is not None and self.mean is not None:
            raise PydanticCustomError(
                "conflict", "`preprocess` says mean and std by name; leave one of them out",
                {"at": ("preprocess",)},
            )  # fmt: skip
        for name in ("zero_init_residual", "skip_scale", "stochastic_depth"):
            if self.checkpoint is not None and getattr(self, name):
                raise PydanticCustomError(
                    "conflict", "`{name}` is for random weights; leave it or `checkpoint` out",
                    {"name": name, "at": (name,)},
                )  # fmt: skip
        return self

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """mean and std, however they are said; None: the network's own."""
        if self.preprocess is not None:
            way = preprocessing.WAYS[self.preprocess]
            return way.mean, way.std
        return None if self.mean is None or self.std is None else (self.mean, self.std)


class TeacherSection(NetworkSection):
    """The big network: somebody's, or trained here. docs/teachers.md has each source."""

    model: Annotated[
        Text,
        Field(
            description="Architecture (`edgeres list models` shows the names), or where a trained "
            "one is: torchvision:NAME, timm:NAME.TAG, pretrained:NAME, checkpoint:FILE, "
            "torch:FILE, keras:FILE, onnx:FILE, tflite:FILE. With `checkpoint`, torchvision:NAME "
            "and timm:NAME are architectures."
        ),
    ] = "resnet20"
    ensemble: Annotated[
        Names | None,
        Field(description="Several of such sources, whose answers are averaged."),
    ] = None
    average: Annotated[
        Literal["logits", "probabilities"], Field(description="What an ensemble averages.")
    ] = "logits"
    channels: Annotated[
        Literal["rgb", "bgr"] | None,
        Field(description="Order in which a loaded teacher takes them; null is the source's own."),
    ] = None
    size: Annotated[
        Annotated[int, Field(ge=8, le=1024)] | None,
        Field(description="Pixels of its input; images are resized to it. null is its own."),
    ] = None
    outputs: Annotated[
        Annotated[
            tuple[Annotated[int, Field(ge=0)], ...],
            Field(min_length=2, json_schema_extra=_UNIQUE),
            AfterValidator(_unique),
        ]
        | None,
        Field(description="Which of its outputs the data's classes are, in order; null is all."),
    ] = None
    claimed: Annotated[
        Share | None,
        Field(description="Top-1 that its publisher states, shown beside what is measured."),
    ] = None
    near_chance: Annotated[
        Literal["stop", "go on"],
        Field(description="What to do if a loaded teacher is hardly better than guessing."),
    ] = "stop"
    train: TeacherTrainSection = TeacherTrainSection()

    @staticmethod
    def starts_trained(written: Mapping[str, object]) -> bool:
        """Whether a section, as it is written, names weights."""
        return written.get("checkpoint") is not None or ":" in str(written.get("model", ""))

    @model_validator(mode="after")
    def _one_teacher(self) -> TeacherSection:
        second = ":" in self.model and not self.model.startswith(("torchvision:", "timm:"))
        if self.checkpoint is not None and (second or self.ensemble is not None):
            raise PydanticCustomError(
                "conflict", "`checkpoint` is a second teacher; keep it or the other one",
                {"at": ("checkpoint",)},
            )  # fmt: skip
        return self


class LabelsSection(CacheSection):
    """What decides the stored answers; put together from others, not written in a recipe."""

    augment: tuple[str, ...] = ()
    mix: MixSection | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Device = "auto"


class HintSection(Section):
    """A layer of the student imitates a layer of the teacher."""

    teacher: Annotated[Text, Field(description="Name of the teacher's layer, e.g. layer3.")]
    student: Annotated[Text, Field(description="Name of the student's layer, e.g. layer3.")]
    loss: Annotated[
        Literal["hint", "attention"],
        Field(description="hint: features, through a learned adapter; attention: where it looks."),
    ] = "hint"
    weight: Annotated[float, Field(gt=0, le=1e6, description="Beside the other losses.")] = 1.0
    schedule: Annotated[
        Literal["constant", "linear", "cosine"],
        Field(description="How the weight falls to 0 over the training, or not at all."),
    ] = "constant"


class DistillSection(NetworkSection):
    """A smaller network learns from the teacher's answers."""

    student: Annotated[
        Text,
        Field(
            description="Architecture, also torchvision:NAME and timm:NAME; -w0.5 halves the width "
            "of each layer of those built here."
        ),
    ] = "resnet18-w0.5"
    loss: Annotated[
        Text,
        Field(
            description="How the student imitates; `edgeres list losses` shows the names; none "
            "trains on the labels alone."
        ),
    ] = "kd"
    temperature: Temperature = 4.0
    alpha: Alpha = 0.9
    cache: Cache = None
    train: TrainSection = TrainSection()

    hints: Annotated[
        tuple[HintSection, ...], Field(description="Layers that imitate the teacher's, too.")
    ] = ()

    @model_validator(mode="after")
    def _hints_ask_the_teacher(self) -> DistillSection:
        if self.hints and (self.cache is not None or self.loss == "none"):
            raise PydanticCustomError(
                "conflict",
                "`hints` need the teacher in every step; leave out `cache` and loss none",
            )
        return self
