"""The shape of a result file, as far as compare, check and report read it (docs/results.md).

A result file comes from anywhere: what isn't of this shape is refused before anything is computed.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Count = Annotated[int, Field(ge=0, lt=10**12, strict=True)]
Some = Annotated[int, Field(gt=0, lt=10**12, strict=True)]
Positive = Annotated[float, Field(gt=0, lt=1e18, allow_inf_nan=False, strict=True)]
Text = Annotated[str, Field(max_length=1000, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Hex = Annotated[str, Field(pattern="^[0-9a-f]+$", max_length=10**6)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Latency(_Part):
    median_ns: Positive
    sessions: Some
    median_ci_ns: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None
    session_medians_ns: Annotated[list[Positive], Field(min_length=1, max_length=10_000)]
    p90_ns: Positive | None = None
    p95_ns: Positive | None = None
    p99_ns: Positive | None = None
    batch: Some | None = None


class _Cold(_Part):
    load_ns: list[Positive] | None = None
    first_ns: list[Positive] | None = None


class _Memory(_Part):
    peak_rss_bytes: Positive | None = None


class _Energy(_Part):
    joules_per_inference: Positive | None = None


class _Change(_Part):
    lost: Count
    won: Count


class _Accuracy(_Part):
    correct: Count
    n: Some
    right: Hex | None = None
    samples: Text | None = None
    classes: Some | None = None
    against_float: _Change | None = None


class _Runtime(_Part):
    accelerator: Text | None = None


class _Report(_Part):
    target: Text
    device: Text | None
    latency: _Latency | None
    valid: Flag | None = None
    reasons: list[Text] | None = None
    notes: list[Text] | None = None
    source: Text | None = None
    runtime: _Runtime | None = None
    emulated: Flag | None = None
    size_bytes: Positive | None = None
    cold: _Cold | None = None
    memory: _Memory | None = None
    energy: _Energy | None = None
    accuracy: _Accuracy | None = None


_REPORTS = TypeAdapter(list[_Report])


def wrong(reports: object) -> str | None:
    """The first thing that isn't as it should be; None if all is well."""
    try:
        found = _REPORTS.validate_python(reports)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))[:100]}: {first['msg']}"
    for report in found:
        told = report.accuracy
        if told and told.correct > told.n:
            return f"{told.correct} correct answers of {told.n}"
        if told and told.right is not None and not _fits(told.right, told.n):
            return f"accuracy.right is not {told.n} bits"
    return None


def _fits(right: str, n: int) -> bool:
    """Whether this is one bit per sample, padded with zeros to bytes."""
    spare = -n % 8
    return len(right) == (n + spare) // 4 and int(right, 16) % (1 << spare) == 0
