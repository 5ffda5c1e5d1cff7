"""What `report.json` holds, as types: `ladder.build` writes it, everything that draws reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from edgeres import records

if TYPE_CHECKING:
    from typing import NotRequired


class Entry(TypedDict):
    """An artifact as `ladder.build` takes it."""

    step: str
    key: str
    digest: str
    facts: records.Facts
    seconds: NotRequired[float | None]
    section: NotRequired[records.Facts]
    parents: NotRequired[Mapping[str, Mapping[str, str]]]
    history: NotRequired[Sequence[records.Facts] | None]
    predictions: NotRequired[Sequence[int] | Mapping[str, Sequence[int]] | None]
    confidences: NotRequired[Sequence[float] | Mapping[str, Sequence[float]] | None]
    samples: NotRequired[Mapping[str, Mapping[str, Sequence[float]]]]


class Drawn(TypedDict):
    """A calibration image."""

    index: int
    sha256: str


class Manifest(TypedDict):
    """The calibration images."""

    samples: Sequence[Drawn]
    per_class: Mapping[str, int]


class Accuracy(TypedDict):
    """Top-1 as a share with its 95 % Wilson interval."""

    correct: int
    n: int
    top1: float
    low: float
    high: float


class Change(TypedDict):
    """What one rung gained or lost against another, in points; None where they aren't paired."""

    step: str
    label: str
    points: float
    n: int | None
    low: float | None
    high: float | None
    p: float | None
    lost: int | None
    gained: int | None


class Toned(TypedDict):
    """What a mark's colour says; valid where no status is told."""

    precision: str | None
    status: NotRequired[str]


class Rated(Toned):
    """A row of a chart of accuracies."""

    label: str
    kind: str
    detail: str
    accuracy: Accuracy | None


class Step(Rated):
    """A rung of the ladder."""

    step: str
    accuracy_on: str
    claimed: float | None
    against_previous: Change | None
    against_first: Change | None
    parameters: int | None
    macs: int | None
    size_bytes: int | None


class Times(TypedDict):
    """The median of one answer, and its interval."""

    median_ns: float
    median_ci_ns: Sequence[float]


class Compared(Rated):
    """A file of one side of a comparison on a device."""

    target: str
    device: str
    latency: Times | None


class Ratioed(TypedDict):
    """A measure as a multiple of another's; `tone`: better, same or worse."""

    label: str
    change: float
    interval: Sequence[float] | None
    tone: str
    tolerance: float


class Point(Toned):
    """A file in a chart of accuracy against latency."""

    target: str
    accuracy: Accuracy
    latency: Times


class File(Toned):
    """An exported file as it was verified; how it was measured, if it was."""

    target: str
    file: str | None
    size_bytes: int | None
    verified: bool | None
    agreement: float | None
    worst: float | None
    worst_unit: str
    accuracy: Accuracy | None
    accuracy_on: str | None
    threads: NotRequired[int | None]
    preset: NotRequired[str | None]
    runtime: NotRequired[Mapping[str, object] | None]
    measured_at: NotRequired[str | None]
    memory_definition: NotRequired[str | None]


class FileRow(File):
    """The same on one device, or on none."""

    device: str | None
    reasons: list[str]
    latency: records.SureLatency | None
    peak_rss_bytes: int | None
    load_ns: float | None
    first_ns: float | None


class Device(TypedDict):
    """A device at its first measurement."""

    device: str
    emulated: bool
    threads: int | None
    preset: str | None
    runtimes: list[str]
    state: Mapping[str, object]


class Spread(Toned):
    """Latencies of a file on a device: percentiles when warm, every start when cold."""

    device: str
    target: str
    warm_ns: list[float]
    load_ns: list[float]
    first_ns: list[float]


class Certificate(TypedDict):
    """A file's certificate; of an old one, what it doesn't say is None."""

    target: str
    passed: bool
    gates: list[records.Gate]
    scales: records.Scales | None
    float_operators: list[str] | None
    notes: list[str] | None
    test: records.Counted | None
    against_float: records.Agreement | None
    discordant: Sequence[int] | None
    residual_adds: list[str] | None
    layers: list[records.LayerCheck] | None
    run_by: str | None
    runtimes: list[records.OnRuntime] | None
    proof: records.Proof | None


class Verification(TypedDict):
    """Every file's certificate."""

    passed: bool
    files: list[Certificate]


class Trained(TypedDict):
    """A network's epochs."""

    step: str
    label: str
    detail: str
    rows: Sequence[records.Facts]


class Recall(TypedDict):
    """A rung's accuracy per class."""

    step: str
    label: str
    recall: list[Accuracy | None]


class PerClass(TypedDict):
    """Accuracy per true class."""

    classes: list[str]
    counts: list[int]
    rungs: list[Recall]


class Confused(TypedDict):
    """A rung's answers: the whole matrix, or its commonest mistakes."""

    step: str
    label: str
    n: int
    matrix: list[list[int]] | None
    mistakes: list[list[int]]


class Confusion(TypedDict):
    """Answers by true class."""

    classes: list[str]
    rungs: list[Confused]


class Bin(TypedDict):
    """Predictions that are about as sure."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


class Reliability(TypedDict):
    """How sure against how right."""

    step: str
    label: str
    n: int
    ece: float
    bins: list[Bin]
    integer: NotRequired[bool]


class Network(TypedDict):
    """What is inside a file."""

    target: str
    summary: str
    layers: list[records.Layer]


class Note(TypedDict):
    """What a step assumed, left out or replaced."""

    step: str
    note: str


class Made(TypedDict):
    """Where an artifact comes from."""

    step: str
    key: str
    digest: str
    seconds: float | None
    parents: list[str]


class Look(TypedDict):
    """What a network sees."""

    map: str
    confidence: float


class Named(TypedDict):
    """What the headline is about."""

    step: str
    kind: str
    label: str
    detail: str


class Ratio(TypedDict):
    """Before and after."""

    before: int
    after: int
    ratio: float


class Speed(Times):
    """The product's latency; against another file's, if that was measured."""

    target: str
    device: str | None
    p90_ns: float | None
    against: str | None
    before_ns: NotRequired[float]
    ratio: NotRequired[float]
    ratio_low: NotRequired[float]
    ratio_high: NotRequired[float]


class ProductAccuracy(Accuracy):
    """The product's, and what it lost."""

    change: Change | None
    predicted_on: str | None


class Passed(TypedDict):
    """How many files passed, and which didn't or weren't run."""

    passed: int
    files: int
    failed: list[str]
    unrun: list[str]


class Summary(TypedDict):
    """The numbers of the headline."""

    first: Named | None
    product: Named | None
    size: Ratio | None
    macs: Ratio | None
    latency: Speed | None
    doubt: str
    accuracy: ProductAccuracy | None
    verification: Passed | None
    leak: int
    sentences: NotRequired[list[str]]


class Evidence(TypedDict):
    """What is known before the headline."""

    schema: int
    title: str
    run: str
    written_at: str
    ladder: list[Step]
    files: list[FileRow]
    devices: list[Device]
    verification: Verification | None
    training: list[Trained]
    data: records.Facts
    per_class: PerClass | None
    confusion: Confusion | None
    reliability: list[Reliability]
    distributions: list[Spread]
    explained: records.Facts | None
    budgets: list[records.Judged]
    notes: list[Note]
    environment: Mapping[str, object]
    lineage: list[Made]
    networks: list[Network]
    recipe: str


class Summarized(Evidence):
    """The same with the numbers of the headline."""

    summary: Summary


class Report(Summarized):
    """The whole document."""

    next: list[dict[str, str]]
    headline: str
