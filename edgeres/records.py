"""What the documents in artifacts hold, as types. `edgeres.facts` looks whether they do.

What is `NotRequired` may lack, or be null where its type says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

if TYPE_CHECKING:
    from typing import NotRequired

    from edgeres.types import Comparison

Facts: TypeAlias = Mapping[str, Any]
"""Plain values of a document that was checked when it was read: facts, a section or a row of the
history of an artifact (`edgeres.facts` has the form of each), a recipe, what a bundle says."""


class Counted(TypedDict):
    """Correct answers, and of how many."""

    correct: int
    n: int


class Quantization(TypedDict):
    """`types.QuantParams`"""

    scale: Sequence[float]
    zero_point: Sequence[int]
    dtype: str
    axis: NotRequired[int | None]


class Tensor(TypedDict):
    """`types.TensorSpec`"""

    name: str
    shape: Sequence[int]
    dtype: str
    layout: str
    quantization: NotRequired[Quantization | None]


class Exported(TypedDict):
    """`types.ExportedFile`"""

    target: str
    file: str
    sha256: str
    size_bytes: int
    input: Tensor
    output: Tensor


class Layer(TypedDict):
    """An operation of an exported file."""

    kind: str
    role: str
    name: str
    floating: bool
    inputs: list[str]
    output: str
    shape: list[int]
    macs: int
    constant_bytes: int


class Gate(TypedDict):
    """`types.Gate`"""

    name: str
    measured: float | None
    comparison: Comparison
    limit: float
    unit: str
    passed: bool


class Divergence(TypedDict):
    """The first layer that departs, by how many codes."""

    layer: str
    worst: float


class LayerCheck(TypedDict):
    """How far a layer is from what the network says, in codes."""

    name: str
    worst: float


class Scales(TypedDict):
    """How many scales were compared, and how many are equal."""

    compared: int
    equal: int


class Agreement(TypedDict):
    """The share of images with the same answer."""

    agreement: float


class OnRuntime(TypedDict):
    """What another runtime says of a file; the rest lacks where it only looked at it."""

    runtime: str
    how: str
    version: str
    device: str
    taken: int | None
    refused: list[str]
    memory_bytes: Mapping[str, int]
    cycles: int | None
    error: str
    compiled: list[str]
    passed: NotRequired[bool]
    n: NotRequired[int | None]
    agreement: NotRequired[float | None]
    equal_images: NotRequired[int | None]
    worst_codes: NotRequired[float | None]
    test: NotRequired[Counted | None]
    divergence: NotRequired[Divergence | None]
    hint: NotRequired[str]


class Proof(TypedDict):
    """What is known of every image."""

    holds: bool
    sums: int
    pairs: int
    channels: int
    differing: int
    witnesses: list[str]
    unproven: list[str]
    seconds: float
    runtimes: list[str]


class Beside(TypedDict, total=False):
    """What a certificate may say beside."""

    runtimes: list[OnRuntime]
    proof: Proof


class Certified(Beside):
    """A file's certificate."""

    target: str
    passed: bool
    gates: list[Gate]
    agreement: float | None
    bit_equal: NotRequired[float | None]
    worst_codes: float | None
    mean_codes: NotRequired[float | None]
    against_float: Agreement | None
    test: Counted | None
    discordant: Sequence[int] | None
    scales: Scales | None
    layers: list[LayerCheck] | None
    residual_adds: list[str]
    float_operators: list[str]
    operators: NotRequired[Mapping[str, int]]
    run_by: str | None
    notes: list[str]


class Curve(TypedDict, total=False):
    """Seconds since the start and the median then, of a single session."""

    curve: list[list[float]]


class Medians(TypedDict):
    """The times of several sessions; of an estimate, one that is always the same."""

    median_ns: float
    n: int
    session_medians_ns: Sequence[float]


class Estimate(Medians):
    """What a runtime says without a device."""

    median_ci_ns: Sequence[float]
    estimated_by: str


class Paced(Medians):
    """The same of a file that was run in turn with another, at that one's first pace."""

    paced_ns: float


class Filed(Certified):
    """The same with the file it is about, in `verify.json`."""

    file: Exported
    origin: str


class Verification(TypedDict):
    """Every file's certificate."""

    passed: bool
    files: list[Certified]


class Figures(Medians, Curve):
    """Times of one file; what its tool doesn't tell is null."""

    sessions: int
    batch: NotRequired[int | None]
    p90_ns: NotRequired[float | None]
    p95_ns: NotRequired[float | None]
    p99_ns: NotRequired[float | None]
    min_ns: NotRequired[float | None]
    max_ns: NotRequired[float | None]
    percentile_method: NotRequired[str]


class Latency(Figures):
    """The same, with the interval of the median; null of a single session."""

    median_ci_ns: Sequence[float] | None


class SureLatency(Figures):
    """The same of a recipe's measurement, which has several sessions."""

    median_ci_ns: Sequence[float]


class Cold(TypedDict, total=False):
    """Times in fresh processes."""

    load_ns: Sequence[float] | None
    first_ns: Sequence[float] | None


class Memory(TypedDict, total=False):
    """Resident memory."""

    peak_rss_bytes: int
    baseline_rss_bytes: int | None
    definition: str


class Energy(TypedDict, total=False):
    """Energy of one answer."""

    watts: float
    readings: int
    joules_per_inference: float
    definition: str


class Lost(TypedDict):
    """Images that only the float network got right, and that only the file got right."""

    lost: int
    won: int
    p: NotRequired[float]


class Answered(Counted, total=False):
    """What a device answered: the test's hash and classes, and as bits which answers are right."""

    samples: str
    classes: int
    right: str
    against_float: Lost
    against_host: object


class Aside(TypedDict, total=False):
    """What is measured in processes of its own."""

    memory: Memory | None
    energy: Energy | None
    accuracy: Answered | None


class Told(Aside):
    """What is told of one file on one device (docs/results.md)."""

    target: str
    valid: bool
    reasons: list[str]
    file_sha256: NotRequired[str | None]
    size_bytes: NotRequired[int | None]
    cold: NotRequired[Cold]
    emulated: NotRequired[bool | None]
    runtime: NotRequired[Mapping[str, object]]
    preset: NotRequired[str | None]
    threads: NotRequired[int | None]
    build: NotRequired[Mapping[str, object]]
    settings: NotRequired[object]
    state_before: NotRequired[Mapping[str, object]]
    state_after: NotRequired[Mapping[str, object]]
    measured_at: NotRequired[str | None]
    notes: NotRequired[list[str]]
    source: NotRequired[str]


class Measured(Told):
    """A report of a run's own."""

    device: str
    latency: SureLatency


class Timed(Told):
    """A report before it is told of which device."""

    latency: Latency | None


class Report(Timed):
    """Any report; of an imported one, what its tool doesn't tell is null."""

    device: str | None


class Judged(TypedDict):
    """`measurement.budgets.Result`"""

    measure: str
    target: str
    device: str
    limit: float
    value: float | None
    verdict: str
    reason: NotRequired[str]
