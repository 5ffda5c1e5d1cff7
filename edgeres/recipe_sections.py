"""What a recipe may say: one frozen model per section, with defaults, bounds and descriptions.

The descriptions are what an editor shows (recipes/schema.json is generated from these models).
Names of models, data sets, targets and devices are plain text here; who loads them checks them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from edgeres import quantities
from edgeres.errors import BadInput


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise PydanticCustomError("repeated", "names '{name}' twice", {"name": name})
    return names


def _per_channel(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) not in (1, 3):
        raise PydanticCustomError("channels", "should hold 1 value, or 3 (red, green, blue)")
    return values


_UNIQUE = {"uniqueItems": True}
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[
    tuple[Text, ...], Field(min_length=1, json_schema_extra=_UNIQUE), AfterValidator(_unique)
]
Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[
    float, Field(gt=0, le=100, description="Softens the teacher's answers: logits / temperature.")
]
Alpha = Annotated[
    float,
    Field(ge=0, le=1, description="Weight of the teacher's answers; the labels get the rest."),
]

Limit = Annotated[
    Annotated[float, Field(gt=0, le=1e9)] | None, Field(description="At most; see docs/budgets.md.")
]


class Section(BaseModel):
    """Base of all sections: can't be changed, knows no other keys, holds no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


class TrainSection(Section):
    """How a network is trained; the learning rate warms up, then falls along a half cosine."""

    epochs: Annotated[
        int, Field(ge=0, le=100_000, description="Passes over the training images.")
    ] = 10
    batch_size: Annotated[int, Field(ge=1, le=65_536, description="Images per step.")] = 64
    optimizer: Annotated[
        Literal["sgd", "adamw"], Field(description="sgd is with Nesterov momentum.")
    ] = "sgd"
    learning_rate: Annotated[
        float, Field(gt=0, le=100, description="The highest one, after the warm-up.")
    ] = 0.1
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
        tuple[Literal["crop", "flip", "cutout", "randaugment", "trivialaugment"], ...],
        Field(description="Random changes of training images.", json_schema_extra=_UNIQUE),
        AfterValidator(_unique),
    ] = ("crop",)
    mix: Annotated[MixSection | None, Field(description="null mixes no images.")] = None
    device: Annotated[
        Literal["cpu", "cuda", "auto"], Field(description="auto: a GPU where there is one.")
    ] = "cpu"
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"],
        Field(description="Of convolutions and products; fp16 on GPUs only. QAT is always fp32."),
    ] = "fp32"
    accumulate: Annotated[
        int, Field(ge=1, le=1024, description="Compute a batch in so many parts, to save memory.")
    ] = 1
    checkpointing: Annotated[
        bool, Field(description="Compute blocks again for their gradients, to save memory.")
    ] = False
    sync_batchnorm: Annotated[
        bool, Field(description="With several processes: batch statistics over all of them.")
    ] = False


class DataSection(Section):
    """The images: where they are from, their size, and what is set aside."""

    source: Annotated[
        Text, Field(description="NAME or NAME:PATH; `edgeres list datasets` shows the names.")
    ] = "digits"
    size: Annotated[
        Annotated[int, Field(ge=8, le=1024)] | None,
        Field(description="Height and width in pixels; null is the data set's own."),
    ] = None
    validation: Annotated[
        float, Field(gt=0, lt=1, description="Share of the training images set aside.")
    ] = 0.1
    calibration: Annotated[
        int, Field(ge=1, le=100_000, description="Training images that set activation ranges.")
    ] = 256


class FreshSection(Section):
    """How a network that is trained here starts."""

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


class TeacherSection(FreshSection):
    """The big network: somebody's, or trained here. docs/teachers.md has each source."""

    model: Annotated[
        Text,
        Field(
            description="Architecture (`edgeres list models` shows the names), or where a trained "
            "one is: torchvision:NAME, timm:NAME.TAG, checkpoint:FILE, keras:FILE, onnx:FILE."
        ),
    ] = "resnet20"
    ensemble: Annotated[
        Names | None,
        Field(description="Several of such sources, whose answers are averaged."),
    ] = None
    average: Annotated[
        Literal["logits", "probabilities"], Field(description="What an ensemble averages.")
    ] = "logits"
    checkpoint: Annotated[
        Text | None,
        Field(
            description="A .pth, .th or .safetensors file below the current folder or absolute; "
            "null trains the network here."
        ),
    ] = None
    mean: Annotated[
        Annotated[
            tuple[Annotated[float, Field(ge=0, le=1)], ...],
            Field(min_length=1, max_length=3),
            AfterValidator(_per_channel),
        ]
        | None,
        Field(description="The checkpoint's own, 1 or 3 values, as pixel / 255."),
    ] = None
    std: Annotated[
        Annotated[
            tuple[Annotated[float, Field(gt=0, le=1)], ...],
            Field(min_length=1, max_length=3),
            AfterValidator(_per_channel),
        ]
        | None,
        Field(description="The checkpoint's own, 1 or 3 values, as pixel / 255."),
    ] = None
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
    train: TrainSection = TrainSection()

    @model_validator(mode="after")
    def _one_teacher(self) -> TeacherSection:
        if (self.mean is None) != (self.std is None):
            raise PydanticCustomError("conflict", "`mean` and `std` go together; give both")
        if self.checkpoint is not None and (":" in self.model or self.ensemble is not None):
            raise PydanticCustomError(
                "conflict", "`checkpoint` is a second teacher; keep it or the other one",
                {"at": ("checkpoint",)},
            )  # fmt: skip
        return self


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


class LabelsSection(CacheSection):
    """What decides the stored answers; put together from `distill`, not written in a recipe."""

    augment: tuple[str, ...] = ()
    mix: MixSection | None = None


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


class DistillSection(FreshSection):
    """A smaller network learns from the teacher's answers."""

    student: Annotated[
        Text, Field(description="Architecture; -w0.5 halves the width of each layer.")
    ] = "resnet18-w0.5"
    loss: Annotated[
        Literal["kd", "dkd", "dist", "mse", "cosine", "none"],
        Field(description="How the student imitates; none trains on the labels alone."),
    ] = "kd"
    temperature: Temperature = 4.0
    alpha: Alpha = 0.9
    cache: Annotated[
        CacheSection | None,
        Field(description="Store the teacher's answers first; null asks it in every step."),
    ] = None
    train: TrainSection = TrainSection()

    hints: Annotated[
        tuple[HintSection, ...], Field(description="Layers that imitate the teacher's, too.")
    ] = ()

    @model_validator(mode="after")
    def _one_label_each(self) -> DistillSection:
        if self.hints and (self.cache is not None or self.loss == "none"):
            raise PydanticCustomError(
                "conflict",
                "`hints` need the teacher in every step; leave out `cache` and loss none",
            )
        if self.loss == "dkd" and self.train.mix is not None:
            raise PydanticCustomError(
                "conflict", "dkd needs one label per image, and `train.mix` gives two; use kd"
            )
        return self


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
        Annotated[str, _with_unit(quantities.time)] | None,
        Field(description="Budget: measured latency of the int8 file on `device`, e.g. 5ms."),
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
    temperature: Temperature = 4.0
    alpha: Alpha = 0.9
    train: TrainSection = TrainSection()

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
        Literal["qat", "ptq"],
        Field(description="qat trains with quantization; ptq calibrates only."),
    ] = "qat"
    scheme: Annotated[
        Literal["w8a8", "w8a8-symmetric", "w8a16"],
        Field(
            description="int8 weights per channel; activations per tensor: int8, int8 with zero "
            "point 0, or int16."
        ),
    ] = "w8a8"
    ranges: Annotated[
        Literal["min-max", "percentile", "mse", "entropy"],
        Field(description="How calibration chooses what range of a tensor gets codes."),
    ] = "min-max"
    exclude: Annotated[
        tuple[Text, ...],
        Field(
            description="Regular expressions of layers that stay float, e.g. layer1\\..*",
            json_schema_extra=_UNIQUE,
        ),
        AfterValidator(_unique),
    ] = ()
    learned_steps: Annotated[
        bool, Field(description="qat: learn the activations' step sizes (LSQ).")
    ] = False
    temperature: Temperature = 4.0
    alpha: Alpha = 0.5
    freeze_observers: Annotated[
        Share, Field(description="Share of the epochs after which ranges stay fixed.")
    ] = 0.5
    freeze_batchnorm: Annotated[
        Share, Field(description="Share of the epochs after which BatchNorm stays fixed.")
    ] = 0.7
    train: TrainSection = TrainSection()


class ExportSection(Section):
    """Files for the runtimes on the devices."""

    targets: Annotated[
        Names, Field(description="E.g. tflite-int8; `edgeres list targets` shows them all.")
    ]
    input: Annotated[
        Literal["any", "pixels"],
        Field(description="pixels: refuse to write an int8 file whose input isn't raw pixels."),
    ] = "any"
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


class Recipe(Section):
    """A whole recipe, every setting resolved. A stage whose section is None is left out."""

    version: Annotated[Literal[1], Field(description="Of the recipe format.")] = 1
    name: Annotated[
        str,
        Field(
            pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            description="Names the run: letters, digits, '.', '_' and '-'.",
        ),
    ]
    description: Annotated[str, Field(description="One line about it.")] = ""
    seed: Annotated[
        int, Field(ge=0, lt=2**32, description="Of all randomness: the same seed, the same result.")
    ] = 0
    data: DataSection = DataSection()
    teacher: TeacherSection = TeacherSection()
    distill: DistillSection | None = None
    prune: PruneSection | None = None
    quantize: QuantizeSection | None = None
    export: ExportSection | None = None
    verify: VerifySection | None = None
    benchmark: BenchmarkSection | None = None
    budgets: BudgetsSection | None = None
    report: ReportSection | None = None

    @model_validator(mode="after")
    def _files_to_work_on(self) -> Recipe:
        for name in ("verify", "benchmark"):
            if self.export is None and getattr(self, name) is not None:
                raise PydanticCustomError(
                    "conflict",
                    "there are no files to work on; add `export:` or set it to false",
                    {"at": (name,)},
                )
        if self.budgets is not None and self.benchmark is None:
            raise PydanticCustomError(
                "conflict", "nothing is measured; add `benchmark:` or set it to false",
                {"at": ("budgets",)},
            )  # fmt: skip
        return self


class RecipeFile(Recipe):
    """A recipe as it is written, before `extends` and `train` are resolved."""

    extends: Annotated[
        Text | None,
        Field(description="A shipped recipe's name or a file beside this one; this one wins."),
    ] = None
    train: Annotated[
        TrainSection, Field(description="For every stage that trains; a stage's own `train` wins.")
    ] = TrainSection()
