"""How every stage that trains does it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from edgeres.recipe.sections.fields import (
    _UNIQUE,
    Section,
    Share,
    _unique,
)


class MixSection(Section):
    """Two training images become one, and so do their labels; the teacher answers to the mix."""

    kind: Annotated[
        Literal["mixup", "cutmix", "either"],
        Field(description="Faded into one another, a piece pasted, or half of the images each."),
    ] = "either"
    alpha: Annotated[
        float, Field(gt=0, le=100, description="Shares come from Beta(alpha, alpha).")
    ] = 1.0
    share: Annotated[Share, Field(description="Of the images, how many are mixed.")] = 1.0


class CacheSection(Section):
    """The teacher's answers to fixed augmented views are stored once; then it need not run."""

    views: Annotated[
        int, Field(ge=1, le=1000, description="Views of each image, which take turns each epoch.")
    ] = 8
    top: Annotated[
        Annotated[int, Field(ge=1, le=1000)] | None,
        Field(
            description="Answers kept of each view; null: all up to 20 classes, else the top 10."
        ),
    ] = None
    limit_gb: Annotated[
        float, Field(gt=0, le=100_000, description="Refuse to store more than this.")
    ] = 4.0


Cache = Annotated[
    CacheSection | None,
    Field(description="Store the teacher's answers first; null asks it in every step."),
]


Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    Field(description="auto: a CUDA GPU where there is one, else the CPU; mps: an Apple GPU."),
]

FINE_TUNING = 0.01
"""Learning rate that trained weights bear; 0.1 makes of them what random ones would become."""

LearningRate = Annotated[
    float,
    Field(
        gt=0, le=100,
        description="The highest one, after the warm-up. Left out, it is lower for trained weights."
    ),
]  # fmt: skip


class TrainingSection(Section):
    """How a network is trained; the learning rate warms up, then falls along a half cosine."""

    batch_size: Annotated[int, Field(ge=1, le=65_536, description="Images per step.")] = 64
    optimizer: Annotated[
        Literal["sgd", "adamw"], Field(description="sgd is with Nesterov momentum.")
    ] = "sgd"
    learning_rate: LearningRate = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1, description="Of sgd.")] = 0.9
    weight_decay: Annotated[
        float, Field(ge=0, le=10, description="Of weights; not of biases and BatchNorm.")
    ] = 5e-4
    warmup_epochs: Annotated[
        float, Field(ge=0, le=10_000, description="Epochs over which the learning rate rises.")
    ] = 1.0
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="Share of a label spread over all classes.")
    ] = 0.0
    ema: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | None,
        Field(description="Decay of an average of the weights, e.g. 0.999; null keeps the last."),
    ] = None
    clip_norm: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None,
        Field(description="Largest gradient norm; null doesn't limit it."),
    ] = None
    augment: Annotated[
        tuple[
            Literal["crop", "resized-crop", "flip", "cutout", "randaugment", "trivialaugment"], ...
        ],
        Field(description="Random changes of training images.", json_schema_extra=_UNIQUE),
        AfterValidator(_unique),
    ] = ("crop",)
    mix: Annotated[MixSection | None, Field(description="null mixes no images.")] = None
    seed: Annotated[
        Annotated[int, Field(ge=0, lt=2**32)] | None,
        Field(description="Of fresh weights and of the order of images; null is the recipe's."
              " Data, views and stored answers stay as they are."),
    ] = None  # fmt: skip
    device: Device = "auto"
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"],
        Field(description="Of convolutions and products; fp16 on GPUs only. QAT is always fp32."),
    ] = "fp32"
    compile: Annotated[
        bool, Field(description="Compile the network first (minutes; needs a C++ compiler on a"
              " CPU), for faster steps. On a CPU not QAT's."),
    ] = False  # fmt: skip
    accumulate: Annotated[
        int, Field(ge=1, le=1024, description="Compute a batch in so many parts, to save memory.")
    ] = 1
    checkpointing: Annotated[
        bool, Field(description="Compute blocks again for their gradients, to save memory.")
    ] = False
    sync_batchnorm: Annotated[
        bool, Field(description="With several processes: batch statistics over all of them.")
    ] = False

    def seed_or(self, recipe: int) -> int:
        """This training's seed, given the recipe's."""
        return recipe if self.seed is None else self.seed


class TrainSection(TrainingSection):
    """So many passes over the training images."""

    epochs: Annotated[
        int, Field(ge=0, le=100_000, description="Passes over the training images.")
    ] = 10


class RecoverSection(TrainSection):
    """Fine-tuning of a pruned network."""

    learning_rate: LearningRate = FINE_TUNING


class QatSection(TrainSection):
    """Fine-tuning of a quantized network, which knows nearly everything already."""

    learning_rate: LearningRate = 0.003


class TeacherTrainSection(TrainingSection):
    """Of a teacher, which may be trained already."""

    epochs: Annotated[
        Annotated[int, Field(ge=0, le=100_000)] | None,
        Field(
            description="Passes over the training images. null: 10; none for a teacher with "
            "weights, unless its classes aren't the data's."
        ),
    ] = None

    def of(self, epochs: int = 10) -> TrainSection:
        """With so many epochs where none are said."""
        said = epochs if self.epochs is None else self.epochs
        return TrainSection(**self.model_dump(exclude={"epochs"}), epochs=said)
