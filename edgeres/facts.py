"""The shape of `artifact.json` and `verify.json`, as far as anything reads them.

A description may come from anywhere, so what isn't of this shape is refused when it is read, by its
first wrong value, and nothing behind has to ask. What stands there beside, nothing reads. Shapes
are plain values, so that a command that only looks up finished work builds no classes first:

    {"a": shape, "b?": shape}   a mapping with `a`; `b` may lack or be null
    [shape]                     a list
    {"*": shape}                a mapping of any names
    kind                        what a function of this module says
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from edgeres import door
from edgeres.disk import contents_digest

_HASH, _STAGE, _KEY = (re.compile(p) for p in ("[0-9a-f]{64}", "[a-z]{1,40}", "[0-9a-z]{1,64}"))
_TYPES = ("float32", "float16", "int8", "uint8", "int16", "int32")


def text(value: Any) -> bool:
    """a text"""
    return isinstance(value, str) and len(value) <= 2000


def truth(value: Any) -> bool:
    """true or false"""
    return isinstance(value, bool)


def number(value: Any) -> bool:
    """a number"""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def whole(value: Any) -> bool:
    """a whole number"""
    return isinstance(value, int) and number(value) and abs(value) < 10**15


def count(value: Any) -> bool:
    """a whole number, 0 or more"""
    return whole(value) and value >= 0


def some(value: Any) -> bool:
    """a whole number, 1 or more"""
    return whole(value) and value >= 1


def share(value: Any) -> bool:
    """a number from 0 to 1"""
    return number(value) and 0 <= value <= 1


def positive(value: Any) -> bool:
    """a number larger than 0"""
    return number(value) and 0 < value < 1e18


def pixels(value: Any) -> bool:
    """a size of images in pixels"""
    return some(value) and value <= 65_536


def sha256(value: Any) -> bool:
    """a SHA-256 in hex"""
    return text(value) and _HASH.fullmatch(value) is not None


def stage(value: Any) -> bool:
    """the name of a stage"""
    return text(value) and _STAGE.fullmatch(value) is not None


def key(value: Any) -> bool:
    """the key of an artifact"""
    return text(value) and _KEY.fullmatch(value) is not None


def anything(_: Any) -> bool:
    """any value"""
    return True


def _one_of(*known: Any) -> Callable[[Any], bool]:
    def kind(value: Any) -> bool:
        return type(value) in {type(k) for k in known} and value in known

    kind.__doc__ = f"one of {', '.join(map(str, known))}"
    return kind


def _list_of(shape: Any, least: int, most: int) -> Callable[[Any], bool]:
    def kind(value: Any) -> bool:
        return (
            isinstance(value, list)
            and least <= len(value) <= most
            and _wrong([shape], value) is None
        )

    kind.__doc__ = f"a list of {least} or more"
    return kind


def _counted(value: Any) -> bool:
    """correct answers, and of how many"""
    return _wrong({"correct": count, "n": some}, value) is None and value["correct"] <= value["n"]


_LISTED = {"sha256": sha256, "size_bytes": count}
_DESCRIPTION = {
    "schema": _one_of(1), "stage": stage, "key": key, "digest": sha256,
    "parents": {"*": {"stage": stage, "key": key, "digest": sha256}},
    "section": {"*": anything}, "facts": {"*": anything}, "libraries": {"*": text},
    "seconds": lambda v: number(v) and 0 <= v < 1e12, "files": {"*": _LISTED},
    "made_with?": {"*": anything}, "varies?": [text], "checksum?": sha256,
}  # fmt: skip
_PREPROCESS = {"size_px": pixels, "mean": _list_of(number, 1, 3), "std": _list_of(number, 1, 3)}
_DATA = {
    "name": text, "classes": _list_of(text, 1, 1_000_000), "size_px": pixels,
    "counts": {"*": count}, "fingerprints?": {"*": text},
    "calibration?": {"count?": count, "split?": text, "overlap_with_test?": count, "sha256?": text},
}  # fmt: skip
_TEACHER = {"model": text, "parameters?": count, "macs?": count, "test": _counted,
            "validation?": _counted, "source?": text, "claimed?": share}  # fmt: skip
_NETWORK = {"model": text, "parameters": count, "macs": count, "test": _counted,
            "validation?": _counted, "source?": text}  # fmt: skip
_PRUNED = {**_NETWORK, "macs_before": some, "macs_after": count,
           "latency?": {"asked_ns": positive, "predicted_ns": positive,
                        "measured": {"paced_ns": positive, "median_ns": positive}}}  # fmt: skip
_QUANTIZATION = {"scale": _list_of(number, 1, 10**6), "zero_point": _list_of(whole, 1, 10**6),
                 "dtype": text, "axis?": whole}  # fmt: skip
_TENSOR = {"name": text, "shape": _list_of(whole, 0, 16), "dtype": _one_of(*_TYPES), "layout": text,
           "quantization?": _QUANTIZATION}  # fmt: skip
_EXPORTED = {"target": text, "file": door.is_plain, "sha256": sha256, "size_bytes": count,
             "input": _TENSOR, "output": _TENSOR}  # fmt: skip
_LAYER = {"kind": text, "role": text, "name": text, "floating": truth, "inputs": [text],
          "output": text, "shape": [whole], "macs": count, "constant_bytes": count}  # fmt: skip
_EXPORT = {
    "exported": _EXPORTED, "preprocess": _PREPROCESS,
    "graph?": {"float_operators": [text], "integer_share": {"macs": share}, "requires?": text,
               "layers": [_LAYER]},
}  # fmt: skip
_GATE = {"name": text, "measured?": number, "comparison": _one_of(">=", "<=", "=="),
         "limit": number, "unit?": text, "passed": truth}  # fmt: skip
_CERTIFIED = {
    "target": text, "passed": truth, "gates": [_GATE], "agreement?": share, "worst_codes?": number,
    "against_float?": {"agreement": share}, "test?": _counted, "discordant?": _list_of(count, 2, 2),
    "scales?": {"compared": count, "equal": count}, "layers?": [{"name": text}],
    "residual_adds?": [text], "float_operators?": [text], "notes?": [text], "run_by?": text,
}  # fmt: skip
_REPORT = {
    "target": text, "device": text, "size_bytes?": count,
    "latency": {"median_ns": positive, "median_ci_ns": _list_of(positive, 2, 2), "n": count,
                "sessions?": some, "session_medians_ns?": [positive],
                "p90_ns?": positive, "p95_ns?": positive, "p99_ns?": positive},
    "cold?": {"load_ns?": [positive], "first_ns?": [positive]},
    "memory?": {"peak_rss_bytes?": number, "baseline_rss_bytes?": number, "definition?": text},
    "energy?": {"joules_per_inference?": positive}, "accuracy?": _counted, "emulated?": truth,
    "valid": truth, "reasons": [text], "runtime?": {"*": anything}, "preset?": text,
    "state_before?": {"*": anything}, "threads?": count,
}  # fmt: skip
_RESULT = {"measure": text, "target": text, "device": text, "limit": number, "value?": number,
           "verdict": _one_of("pass", "fail", "not measurable")}  # fmt: skip
_FACTS: Mapping[str, Any] = {
    "data": _DATA, "teacher": _TEACHER, "labels": {"sentence": text}, "distill": _NETWORK,
    "prune": _PRUNED, "quantize": {**_NETWORK, "method": text, "scheme": text}, "export": _EXPORT,
    "verify": {"passed": truth, "files": [_CERTIFIED]}, "benchmark": {"reports": [_REPORT]},
    "budgets": {"met": truth, "results": [_RESULT]}, "report": {"sentences": [text]},
}  # fmt: skip
_CERTIFICATE = {"schema": some, "files": [{**_CERTIFIED, "file": _EXPORTED, "origin": sha256}]}


def wrong_description(document: Any) -> str | None:
    """What isn't as it should be in an `artifact.json`; None if all is well."""
    if found := _wrong(_DESCRIPTION, document):
        return found
    known = {name.removesuffix("?") for name in _DESCRIPTION}
    if unknown := sorted(set(document) - known):  # a key with a wrong letter is damage, too
        return f"{unknown[0][:80]!r}: nothing of this name is in it"
    if (odd := next((n for n in document["files"] if not door.is_inside(n)), None)) is not None:
        return f"files: {odd[:80]!r} is no name of a file in it"
    if document["stage"] not in _FACTS:
        return None
    found = _wrong(_FACTS[document["stage"]], document["facts"], "facts")
    return found or (_wrong_export(document) if document["stage"] == "export" else None)


def wrong_certificate(document: Any) -> str | None:
    """What isn't as it should be in a `verify.json`; None if all is well."""
    return _wrong(_CERTIFICATE, document)


def _wrong_export(document: Mapping[str, Any]) -> str | None:
    """Whether the exported file is one of its files, with the hash that the facts say."""
    exported, files = document["facts"]["exported"], document["files"]
    if document["section"].get("targets") != [exported["target"]]:
        return "section.targets: another one than in facts.exported"
    if not (document["section"].get("licence") is None or text(document["section"]["licence"])):
        return f"section.licence: not {text.__doc__}"
    name = exported["file"]
    inside = {n.removeprefix(f"{name}/"): f["sha256"] for n, f in files.items()
              if n.startswith(f"{name}/")}  # fmt: skip
    known = files[name]["sha256"] if name in files else contents_digest(inside) if inside else ""
    if known != exported["sha256"]:
        return f"facts.exported: {name} isn't the file that is listed"
    return None


def _wrong(shape: Any, value: Any, where: str = "") -> str | None:
    """The first value that isn't of a shape, with its place."""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where}: not a list"
        parts = ((shape[0], inner, f"{where}.{at}") for at, inner in enumerate(value))
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{where or 'it'}: not a mapping"
        if "*" in shape:
            parts = ((shape["*"], inner, f"{where}.{name[:80]}") for name, inner in value.items())
        else:
            wanted = {n.removesuffix("?"): s for n, s in shape.items()}
            if lacking := next((n for n in shape if n not in value and n[-1] != "?"), None):
                return f"{where}.{lacking}: is missing".lstrip(".")
            parts = ((s, value[n], f"{where}.{n}") for n, s in wanted.items()
                     if n in value and (value[n] is not None or f"{n}?" not in shape))  # fmt: skip
    else:
        return None if shape(value) else f"{where.lstrip('.')}: not {_said(shape)}"
    return next((found for part in parts if (found := _wrong(*part))), None)


def _said(kind: Callable[[Any], bool]) -> str:
    return (kind.__doc__ or "such a value").partition("\n")[0].rstrip(".")
