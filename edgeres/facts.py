"""The shape of `artifact.json` and of the documents in artifacts, as far as anything reads them.

A description may come from anywhere, so what isn't of this shape is refused when it is read, by its
first wrong value, and nothing behind has to ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeres import door
from edgeres.disk import contents_digest
from edgeres.shape import (
    anything,
    count,
    counted,
    key,
    list_of,
    number,
    one_of,
    pixels,
    positive,
    sha256,
    share,
    some,
    stage,
    text,
    truth,
    whole,
    wrong,
)

if TYPE_CHECKING:
    from edgeres.records import Facts
    from edgeres.shape import Shape

_TYPES = ("float32", "float16", "int8", "uint8", "int16", "int32")
_LISTED = {"sha256": sha256, "size_bytes": count}
_DESCRIPTION = {
    "schema": one_of(1), "stage": stage, "key": key, "digest": sha256,
    "parents": {"*": {"stage": stage, "key": key, "digest": sha256}},
    "section": {"*": anything}, "facts": {"*": anything}, "libraries": {"*": text},
    "seconds": lambda v: number(v) and 0 <= v < 1e12, "files": {"*": _LISTED},
    "plugins?": [{"kind": text, "name": text, "package": text, "version": text, "code": text}],
    "made_with?": {"*": anything}, "varies?": [text], "checksum?": sha256,
}  # fmt: skip
_PREPROCESS = {"size_px": pixels, "mean": list_of(number, 1, 3), "std": list_of(number, 1, 3)}
_DATA = {
    "name": text, "classes": list_of(text, 1, 1_000_000), "size_px": pixels,
    "counts": {"*": count}, "fingerprints?": {"*": text},
    "resize?": {"size_px": pixels, "short_side_px": pixels, "crop": one_of("center", "none"),
                "interpolation": one_of("bilinear", "bicubic", "lanczos", "box", "nearest")},
    "notes?": [text],
    "calibration?": {"count?": count, "split?": text, "overlap_with_test?": count, "sha256?": text},
}  # fmt: skip
_TEACHER = {"model": text, "parameters?": count, "macs?": count, "test": counted,
            "validation?": counted, "source?": text, "claimed?": share,
            "notes?": [text]}  # fmt: skip
_NETWORK = {"model": text, "parameters": count, "macs": count, "test": counted,
            "validation?": counted, "source?": text, "notes?": [text]}  # fmt: skip
_PRUNED = {**_NETWORK, "macs_before": some, "macs_after": count,
           "latency?": {"asked_ns": positive, "predicted_ns": positive,
                        "measured": {"paced_ns": positive, "median_ns": positive,
                                     "estimated_by?": text}}}  # fmt: skip
_QUANTIZATION = {"scale": list_of(number, 1, 10**6), "zero_point": list_of(whole, 1, 10**6),
                 "dtype": text, "axis?": whole}  # fmt: skip
_TENSOR = {"name": text, "shape": list_of(whole, 0, 16), "dtype": one_of(*_TYPES), "layout": text,
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
_GATE = {"name": text, "measured?": number, "comparison": one_of(">=", "<=", "=="),
         "limit": number, "unit?": text, "passed": truth}  # fmt: skip
_ON_RUNTIME = {
    "runtime": text, "how": text, "passed": truth, "version": text, "device": text,
    "taken?": count, "refused": [text], "memory_bytes": {"*": count}, "cycles?": count,
    "error": text, "n?": count, "agreement?": share, "equal_images?": count,
    "worst_codes?": number, "test?": counted, "divergence?": {"layer": text, "worst": number},
    "compiled": [door.is_plain], "hint?": text,
}  # fmt: skip
_PROOF = {
    "holds": truth, "sums": count, "pairs": count, "channels": count, "differing": count,
    "witnesses": [text], "unproven": [text], "seconds": number, "runtimes": [text],
}  # fmt: skip
_CERTIFIED = {
    "target": text, "passed": truth, "gates": [_GATE], "agreement?": share, "worst_codes?": number,
    "against_float?": {"agreement": share}, "test?": counted, "discordant?": list_of(count, 2, 2),
    "scales?": {"compared": count, "equal": count}, "layers?": [{"name": text}],
    "residual_adds?": [text], "float_operators?": [text], "notes?": [text], "run_by?": text,
    "runtimes?": [_ON_RUNTIME], "proof?": _PROOF,
}  # fmt: skip
_REPORT = {
    "target": text, "device": text, "size_bytes?": count,
    "latency": {"median_ns": positive, "median_ci_ns": list_of(positive, 2, 2), "n": count,
                "sessions?": some, "session_medians_ns?": [positive],
                "p90_ns?": positive, "p95_ns?": positive, "p99_ns?": positive},
    "cold?": {"load_ns?": [positive], "first_ns?": [positive]},
    "memory?": {"peak_rss_bytes?": number, "baseline_rss_bytes?": number, "definition?": text},
    "energy?": {"joules_per_inference?": positive}, "accuracy?": counted, "emulated?": truth,
    "valid": truth, "reasons": [text], "runtime?": {"*": anything}, "preset?": text,
    "state_before?": {"*": anything}, "threads?": count,
}  # fmt: skip
_RESULT = {"measure": text, "target": text, "device": text, "limit": number, "value?": number,
           "verdict": one_of("pass", "fail", "not measurable")}  # fmt: skip
_FACTS: Mapping[str, Shape] = {
    "data": _DATA, "teacher": _TEACHER, "labels": {"sentence": text}, "distill": _NETWORK,
    "prune": _PRUNED, "export": _EXPORT,
    "quantize": {**_NETWORK, "method": text, "scheme": text},
    "verify": {"passed": truth, "files": [_CERTIFIED]}, "benchmark": {"reports": [_REPORT]},
    "budgets": {"met": truth, "results": [_RESULT]}, "report": {"sentences": [text]},
}  # fmt: skip
CERTIFICATE = {"schema": some, "files": [{**_CERTIFIED, "file": _EXPORTED, "origin": sha256}]}
"""`verify.json`"""
SCALES = {"*": _QUANTIZATION}
"""`scales.json`"""
CALIBRATION = {"split": text, "samples": [{"index": count, "sha256": sha256}]}
"""`calibration.json`"""
HISTORY = {"epoch": count, "loss?": number, "validation_top1?": number}
"""A line of `history.jsonl`"""
SAMPLES = {"devices": [{"device": text, "samples?": {"*": [[positive]]}}]}
"""`samples.json`"""


def wrong_description(document: Any) -> str | None:
    """What isn't as it should be in an `artifact.json`; None if all is well."""
    if found := wrong(_DESCRIPTION, document):
        return found
    known = {name.removesuffix("?") for name in _DESCRIPTION}
    if unknown := sorted(set(document) - known):  # a key with a wrong letter is damage, too
        return f"{unknown[0][:80]!r}: nothing of this name is in it"
    if (odd := next((n for n in document["files"] if not door.is_inside(n)), None)) is not None:
        return f"files: {odd[:80]!r} is no name of a file in it"
    if document["stage"] not in _FACTS:
        return None
    found = wrong(_FACTS[document["stage"]], document["facts"], "facts")
    return found or (_wrong_export(document) if document["stage"] == "export" else None)


def _wrong_export(document: Facts) -> str | None:
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
