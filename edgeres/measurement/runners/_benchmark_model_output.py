"""What benchmark_model said. In: its text and its result file. Out: figures in ns and bytes.

Two programs have this name: TFLite's, whose lines count in µs, and LiteRT's, whose block of results
counts in ms. Both write the same protobuf (BenchmarkResult), which is read first: the text rounds.
All of it comes from a device and may be cut off, empty or garbage: what can't be read is left out.

Source: google-ai-edge/LiteRT, tflite/tools/benchmark/ and litert/tools/benchmark_litert_model.h.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import struct
from collections.abc import Iterator, Mapping

CLASSIC, LITERT = "TFLite", "LiteRT"

_MS, _US, _MIB = 1e6, 1e3, float(1 << 20)
# message -> field -> (figure, what turns it into ns or bytes)
_FIELDS: dict[int, dict[int, tuple[str, float]]] = {
    2: {1: ("avg_ns", _MS), 2: ("min_ns", _MS), 3: ("max_ns", _MS), 5: ("median_ns", _MS),
        8: ("load_ns", _MS), 9: ("first_ns", _MS)},
    3: {1: ("init_bytes", 1024), 2: ("overall_bytes", 1024), 3: ("peak_bytes", _MIB)},
    4: {2: ("n", 1)},
}  # fmt: skip
_N = r"([-+\d.e]{1,24}|inf|nan)"
_COUNT = re.compile(r"\bcount=(\d{1,12})\b([^\n]*)")
_PAIR = re.compile(rf"\b(\w+)={_N}(?=[\s(]|$)")
_TIMINGS = re.compile(rf"Inference timings in us: Init: {_N}, First inference: {_N},")
_TIMINGS_2019 = re.compile(
    rf"Average inference timings in us: [^\n]{{1,60}}, Init: {_N}, (?:no|with) stats: {_N}"
)
_FOOTPRINT = re.compile(rf"delta from the start of the tool \(MB\): init={_N} overall={_N}")
_PEAK = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {_N}")
# The unit tells LiteRT's block from TFLite's line of timings, which has the same names.
_BLOCK = re.compile(rf"\b([A-Z][a-z]+(?: [a-z]+)?(?: \([a-z]+\))?):\s+{_N} (?:ms|MB)"
                    r"(?: \((\d{1,12}) runs\))?\s*$", re.M)  # fmt: skip
_BLOCK_NAMES = {
    "Model initialization": ("load_ns", _MS), "Warmup (first)": ("first_ns", _MS),
    "Inference (avg)": ("avg_ns", _MS), "Inference (min)": ("min_ns", _MS),
    "Inference (max)": ("max_ns", _MS), "Init footprint": ("init_bytes", _MIB),
    "Overall footprint": ("overall_bytes", _MIB), "Peak memory": ("peak_bytes", _MIB),
}  # fmt: skip
_APPLIED = re.compile(
    r"Explicitly applied ([A-Za-z]{1,40}) delegate, and the model graph will be (\w+) executed"
)
_NOT_APPLIED = re.compile(
    r"Though ([A-Za-z]{1,40}) delegate is explicitly applied, the model graph will not be"
)
_REPLACED = re.compile(
    r"Replacing (\d{1,9}) out of (\d{1,9}) node\(s\) with delegate \((\w{1,80})\)"
)
_STARTS = (re.compile(r"\bSTARTING!"), re.compile(r"\bInitialized session in "))
_SETTING = re.compile(r"\b([A-Z][\w ()]{1,60}): \[([^\]\n]{0,300})\]")
_BATCH = re.compile(r"\bInput shapes?: \[(\d{1,9})[,\]]")
# logcat's formats threadtime, time and brief; and a tag of this program's
_LOGCAT = re.compile(
    r"^(?:(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d\.\d{3,9} +)?"
    r"(?:(?:\d{1,9} +){2}[VDIWEF] +([^:\n]{1,60}?) *: |[VDIWEF]/([^(\n]{1,60}?) *\( *\d{1,9}\): )"
)
_TAG = re.compile(r"tflite|litert|benchmark", re.I)
_NAMES = {"xnnpack": "cpu", "gpu": "gpu", "nnapi": "nnapi", "dispatch": "npu", "litert_cl": "gpu"}


def kind(help_text: str) -> str | None:
    """Which of the two programs explains itself like this; None if neither does."""
    if "--graph=" not in help_text:
        return None
    if re.search(r"--(use_npu|use_cpu|dispatch_library_path)=", help_text):
        return LITERT
    return CLASSIC if "--num_runs=" in help_text else None


def figures(text: str, proto: bytes = b"") -> dict[str, int]:
    """`n`, `avg_ns`, `min_ns`, `max_ns`, `median_ns`, `p95_ns`, `load_ns`, `first_ns`, and bytes.

    Nothing is in it that wasn't said. Times of 0 ns are kept: a very small network has them.
    """
    found = _from_text(text) | _from_proto(proto)
    usable = {name: value for name, value in found.items() if math.isfinite(value) and value >= 0}
    return {name: round(value) for name, value in usable.items()}


def without_prefixes(text: str) -> str:
    """The text as it was printed, where it comes out of Android's logcat among others' lines."""
    lines = [(line, _LOGCAT.match(line[:300])) for line in text.splitlines()]
    if not any(found for _, found in lines):
        return text
    return "\n".join(
        line[found.end() :] if found else line
        for line, found in lines if found is None or _TAG.search(found[1] or found[2])
    )  # fmt: skip


def runs(text: str) -> list[str]:
    """The text of each run, where several were printed one after the other."""
    found = ([found.start() for found in start.finditer(text)] for start in _STARTS)
    starts = next(filter(None, found), [])
    cuts = [0, *(at for at in starts if at), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(cuts)]


def settings(text: str) -> str:
    """What the program was told, as it repeats it at its start; "" where that isn't there."""
    if not _STARTS[0].search(text):
        return ""
    return ", ".join(f"{name.strip()}: {value}" for name, value in _SETTING.findall(text))


def batch(text: str) -> int | None:
    """Images in a query; None if the text doesn't tell."""
    found = _BATCH.search(text)
    return int(found[1]) or None if found else None


def computed_by(text: str, asked: str) -> tuple[str | None, str | None]:
    """The accelerator that did the work, as the delegates' lines tell, and a doubt in a sentence.

    None, with no doubt if "cpu" was asked for: the lines say nothing.
    """
    said = _shares(text)
    if asked == "cpu":
        others = [name for name, share in said.items() if name != "cpu" and share > 0]
        if others:
            return "+".join([*others, "cpu"]), f"the CPU was asked for, but {others[0]} took part"
        return "cpu", None
    share = said.get(asked)
    if share is None:
        return None, f"benchmark_model didn't say whether the {asked} computed anything"
    if share == 0:
        return "cpu", f"the {asked} was asked for, but the CPU computed everything"
    if share < 1:
        return f"{asked}+cpu", f"the {asked} computed only a part of the network, the CPU the rest"
    return asked, None


def _shares(text: str) -> dict[str, float]:
    """Accelerator -> its part of the graph: 1 all, 0 nothing, between them a part."""
    said: dict[str, float] = {}
    for count, total, name in _REPLACED.findall(text):
        said[_accelerator(name)] = 0.0 if int(count) == 0 else 1.0 if count == total else 0.5
    for name, how in _APPLIED.findall(text):
        said[_accelerator(name)] = 1.0 if how == "completely" else 0.5
    for name in _NOT_APPLIED.findall(text):
        said[_accelerator(name)] = 0.0
    return said


def _accelerator(delegate: str) -> str:
    """The delegates' many names: TfLiteXNNPackDelegate, GPU, LITERT_CL, DispatchDelegate."""
    low = delegate.lower()
    return next((name for part, name in _NAMES.items() if part in low), low)


def _from_text(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    counts = _COUNT.findall(text)
    if len(counts) > 1:  # the first is the warm-up
        pairs = {name: _number(value) for name, value in _PAIR.findall(counts[-1][1])}
        found["n"] = int(counts[-1][0])
        if "curr" in pairs and "avg" not in pairs:  # one run, or all took the same time
            pairs |= dict.fromkeys(("min", "max", "avg", "median"), pairs["curr"])
        names = {name: f"{name}_ns" for name in ("min", "max", "avg", "median", "p95")}
        found |= {names[k]: v * _US for k, v in pairs.items() if k in names}
        first = dict(_PAIR.findall(counts[0][1])).get("first")
        if first is not None:
            found["first_ns"] = _number(first) * _US
    for pattern, figures_, scale in (
        (_TIMINGS_2019, ("load_ns", "avg_ns"), _US),
        (_TIMINGS, ("load_ns", "first_ns"), _US),
        (_FOOTPRINT, ("init_bytes", "overall_bytes"), _MIB),
        (_PEAK, ("peak_bytes",), _MIB),
    ):
        if match := pattern.search(text):
            found |= {n: _number(v) * scale for n, v in zip(figures_, match.groups(), strict=True)}
    for name, value, runs in _BLOCK.findall(text):
        if name in _BLOCK_NAMES:
            figure, scale = _BLOCK_NAMES[name]
            found.setdefault(figure, _number(value) * scale)
            if name == "Inference (avg)" and runs:
                found.setdefault("n", int(runs))
    return found


def _from_proto(data: bytes) -> dict[str, float]:
    """BenchmarkResult, decoded by hand; what precedes damaged bytes is kept."""
    found: dict[str, float] = {}
    with contextlib.suppress(IndexError, struct.error):
        for message, body in _fields(data):
            if isinstance(body, bytes) and message in _FIELDS:
                found |= _from_message(body, _FIELDS[message])
    return found


def _from_message(data: bytes, known: Mapping[int, tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    with contextlib.suppress(IndexError, struct.error):
        for field, value in _fields(data):
            if field in known and not isinstance(value, bytes):
                name, scale = known[field]
                found[name] = value * scale
    return found


def _fields(data: bytes) -> Iterator[tuple[int, float | bytes]]:
    """The fields of one message, each a number or bytes; IndexError or struct.error at damage."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, float(value - (value >> 63 << 64))  # an int64; growth may be negative
        elif wire == 2:
            size, at = _varint(data, at)
            yield key >> 3, data[at : at + size]
            at += size
        else:
            size, form = {1: (8, "<d"), 5: (4, "<f")}.get(wire, (0, "<d"))
            yield key >> 3, struct.unpack(form, data[at : at + size])[0]
            at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise IndexError("a number of over 10 bytes")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
