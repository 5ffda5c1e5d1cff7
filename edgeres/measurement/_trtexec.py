"""What NVIDIA's trtexec prints and writes, as values. Pure functions: text in, values out.

Its JSON is written by hand: names aren't escaped, numbers may be `nan` or `inf`. Numbers in its
text have six digits. Text that isn't trtexec's gives None or an empty value, never an error.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_HEADER = re.compile(r"^&&&& (?:RUNNING|PASSED|FAILED|WAIVED) \S+ \[TensorRT v(\d{4,6})\]", re.M)
_VERSION = re.compile(r"\[I\] TensorRT version: (\d{1,3}\.\d{1,3}\.\d{1,3})")
_START = re.compile(r"^&&&& RUNNING \S+ \[[^\n]{1,80}# ?([^\n]{0,2000})", re.M)
_END = re.compile(r"^&&&& (PASSED|FAILED|WAIVED) ", re.M)
_ERROR = re.compile(r"^(?:\[[^\]\n]{0,40}\] ?)?\[E\] (.{1,500})$", re.M)
_WARNING = re.compile(r"\[W\] \* ([^,.\n]{1,200})")
_ROW = re.compile(r"\[I\] (Latency|GPU Compute Time|H2D Latency|D2H Latency): (.{1,1000})$", re.M)
_VALUE = re.compile(r"(min|max|mean|median|percentile\(9[059]%\)) = ([\d.e+-]{1,30}|inf|nan) ms")
# TensorRT 7 has a title, and a line for each figure.
_TITLE = re.compile(r"\[I\] (host latency|enqueue time|gpu compute)\s*$", re.I)
_FIGURE = re.compile(
    r"\[I\] (min|max|mean|median|percentile): ([\d.e+-]{1,30}|inf|nan) ms(?: at (\d{1,3})%)?"
)
# What says how many images a query has, the surest first; --optShapes counts without --shapes.
_SHAPE = r"(\d{1,9})x\d"
_BATCH = tuple(map(re.compile, (
    rf"[Ii]nput binding for [^\n]{{1,200}}? with dimensions {_SHAPE}",
    rf"\[I\] Input inference shapes? ?: [^=\n]{{1,200}}={_SHAPE}",
    rf" --shapes=(?:\S{{0,200}}?:)?{_SHAPE}", r" --batch=(\d{1,9})\b", r"\[I\] Batch: (\d{1,9})\s",
    rf" --optShapes=(?:\S{{0,200}}?:)?{_SHAPE}",
)))  # fmt: skip
_QUERIES = re.compile(r"\[I\] Timing trace has (\d{1,12}) queries over")
_SECONDS = r" in (\d{1,9}(?:\.\d{1,9})?(?:e[+-]?\d{1,3})?) sec"
_BUILT = re.compile("Engine built" + _SECONDS)
_LOADED = re.compile("Engine (?:deserialized|loaded)" + _SECONDS)
_GPU = re.compile(r"\[I\] Selected Device: ([^\n]{1,100})")
_NOT_JSON = re.compile(r"(?<![\w\"'])(-?)(nan|inf)(?![\w\"'])", re.I)
_STRING = re.compile(
    r'("[\w /]{1,40}"\s?:\s?")([^\n]{0,2000}?)("\s{0,8}(?:,\s{0,8}["{\[]|[}\]]|\n))'
)
_TYPE = re.compile(r"\b(int8|int4|fp8|fp4|fp16|half|bf16|fp32|float)\b", re.I)


def runs(text: str) -> list[str]:
    """The log of each run, where one log has several; what precedes the first is a part, too."""
    starts = [found.start() for found in _START.finditer(text)]
    cuts = [0, *(at for at in starts if at), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(cuts)]


def command(text: str) -> str:
    """How trtexec was called, as its log says; "" if it doesn't."""
    found = _START.search(text)
    return " ".join(found[1].split()) if found else ""


def batch(text: str) -> int | None:
    """Images in a query; None if the log doesn't tell."""
    found = next(filter(None, (pattern.search(text) for pattern in _BATCH)), None)
    return int(found[1]) or None if found else None


def version(text: str) -> str | None:
    """The version of TensorRT, such as "10.3.0"."""
    said = _VERSION.search(text)
    if said:
        return said[1]
    header = _HEADER.search(text)
    if not header:
        return None
    number = int(header[1])
    major = 10_000 if number >= 100_000 else 1000  # two digits for each part since TensorRT 10
    return f"{number // major}.{number % major // 100}.{number % 100}"


def outcome(text: str) -> str | None:
    """PASSED, FAILED or WAIVED; None if it ended without a word."""
    found = _END.findall(text)
    return found[-1] if found else None


def last_words(text: str) -> str:
    """Its last errors, or else its last line, in one line."""
    errors = _ERROR.findall(text)[-3:]
    lines = [line for line in text.splitlines() if line.strip()]
    said = "; ".join(errors) or (lines[-1] if lines else "")
    return " ".join("".join(c if c.isprintable() else " " for c in said).split())[-400:]


def warnings(text: str) -> list[str]:
    """What it warns of: the sentences without their numbers, so that sessions say the same."""
    return sorted({" ".join(found.split()) for found in _WARNING.findall(text)})


def build_seconds(text: str) -> float | None:
    """What it took to build the engine."""
    return _seconds(_BUILT, text)


def load_seconds(text: str) -> float | None:
    """What it took to load the engine."""
    return _seconds(_LOADED, text)


def gpu(text: str) -> str | None:
    """The GPU it ran on."""
    found = _GPU.search(text)
    return found[1].strip() if found else None


def _seconds(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.search(text)
    return float(found[1]) if found else None


@dataclass(frozen=True)
class Summary:
    """trtexec's own figures of its measured queries, in ns."""

    n: int
    median_ns: float
    p90_ns: float | None
    p95_ns: float | None
    p99_ns: float | None
    min_ns: float | None
    max_ns: float | None
    compute_median_ns: float | None


def summary(text: str) -> Summary | None:
    """The performance summary at the end of a log; None if there is none."""
    rows = {name: dict(_VALUE.findall(values)) for name, values in _ROW.findall(text)}
    rows = rows or _rows_of_7(text)
    latency = {key: ns(value) for key, value in rows.get("Latency", {}).items()}
    queries, middle = _QUERIES.search(text), latency.get("median")
    if middle is None:
        return None
    return Summary(
        n=int(queries[1]) if queries else 0, median_ns=middle,
        p90_ns=latency.get("percentile(90%)"), p95_ns=latency.get("percentile(95%)"),
        p99_ns=latency.get("percentile(99%)"),
        min_ns=latency.get("min"), max_ns=latency.get("max"),
        compute_median_ns=ns(rows.get("GPU Compute Time", {}).get("median")),
    )  # fmt: skip


def _rows_of_7(text: str) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    row: dict[str, str] | None = None
    names = {"host latency": "Latency", "gpu compute": "GPU Compute Time"}
    for line in text.splitlines():
        if title := _TITLE.search(line):
            row = rows.setdefault(names.get(title[1].lower(), ""), {})
        elif row is not None and (found := _FIGURE.search(line)):
            row[f"percentile({found[3]}%)" if found[3] else found[1]] = found[2]
    return rows


def ns(milliseconds: object) -> float | None:
    """Milliseconds as a whole number of ns; None if it is no time."""
    if not isinstance(milliseconds, (str, int, float)):
        return None
    try:
        value = float(milliseconds)
    except ValueError:
        return None
    return float(round(value * 1e6)) if math.isfinite(value) and 0 < value < 1e9 else None


def times(text: str, warm_up_ms: float = 0.0) -> list[tuple[int, int | None]]:
    """--exportTimes: the latency and the GPU's part of each query, in ns.

    Args:
        warm_up_ms: leave out what started to compute before; TensorRT 8 lists its warm-up too.
    """
    rows = loose_json(text)
    found = []
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict):
            continue
        started, latency, compute = (
            row.get(k) for k in ("startComputeMs", "latencyMs", "computeMs")
        )
        early = isinstance(started, int | float) and started < warm_up_ms
        whole, part = ns(latency), ns(compute)
        if whole is not None and not early:
            found.append((int(whole), None if part is None else int(part)))
    return found


def convolutions(text: str) -> dict[str, int]:
    """--exportLayerInfo: the type that convolutions compute in -> how many; "" if it isn't told.

    The weights' type first: an engine for any batch says "N/A due to dynamic shapes" of the rest.
    """
    content = loose_json(text)
    layers = content.get("Layers") if isinstance(content, dict) else content
    found: dict[str, int] = {}
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and _convolves(layer):
            kind = next(filter(None, map(_type, _types(layer))), "")
            found[kind] = found.get(kind, 0) + 1
    return found


def _convolves(layer: Mapping[str, object]) -> bool:
    kinds = (layer.get("ParameterType"), layer.get("LayerType"))
    return any(isinstance(kind, str) and "convolution" in kind.lower() for kind in kinds)


def _types(layer: Mapping[str, object]) -> Iterator[object]:
    weights = layer.get("Weights")
    yield weights.get("Type") if isinstance(weights, dict) else None
    for key in ("Inputs", "Outputs"):
        tensors = layer.get(key)
        for tensor in tensors if isinstance(tensors, list) else ():
            yield tensor.get("Format/Datatype") if isinstance(tensor, dict) else None


def _type(text: object) -> str | None:
    found = _TYPE.search(text) if isinstance(text, str) else None
    return (
        {"half": "fp16", "float": "fp32"}.get(found[1].lower(), found[1].lower()) if found else None
    )


def outputs(text: str, name: str) -> list[list[float]]:
    """--exportOutput of one process after the other: each one's values of an output.

    Raises:
        ValueError: it isn't that.
    """
    found = []
    decoder, text, at = json.JSONDecoder(), _numbers(text).strip(), 0
    while at < len(text):
        try:
            content, at = decoder.raw_decode(text, at)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        tensors = [t for t in content if isinstance(t, dict)] if isinstance(content, list) else []
        values = next(
            (t["values"] for t in tensors if t.get("name") == name and "values" in t), None
        )
        if values is None and len(tensors) == 1:  # the name may be one that its JSON can't hold
            values = tensors[0].get("values")
        if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
            raise ValueError(f"no values of '{name}'")
        try:
            found.append([float(v) for v in values])
        except OverflowError as error:  # a whole number with 400 digits
            raise ValueError(f"a value of '{name}' is no float") from error
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


def loose_json(text: str) -> object:
    """JSON as trtexec writes it; None if it can't be read at all."""
    for mended in (_numbers, lambda text: _STRING.sub(_escaped, _numbers(text))):
        try:
            return json.loads(mended(text), strict=False)
        except (ValueError, RecursionError):
            continue
    return None


def _numbers(text: str) -> str:
    return _NOT_JSON.sub(lambda m: f"{m[1]}Infinity" if m[2].lower() == "inf" else "NaN", text)


def _escaped(match: re.Match[str]) -> str:
    return match[1] + json.dumps(match[2])[1:-1] + match[3]
