"""The oldest TensorFlow Lite that can run a file, from the versions of its operators."""

from __future__ import annotations

from collections.abc import Mapping

# Operator -> the release that brought its version 1, 2, …: tflite/tools/versioning/
# runtime_version.cc of google-ai-edge/LiteRT, for the operators of image classifiers. 1.15 became
# 2.1 for everyone who was on 2.0; the table keeps what the sources say.
_RELEASES: dict[str, tuple[str, ...]] = {
    "ADD": ("1.5", "1.14", "2.4", "2.6", "2.13"),
    "AVERAGE_POOL_2D": ("1.5", "1.14", "2.3"),
    "CONCATENATION": ("1.5", "1.14", "2.3", "2.14"),
    "CONV_2D": ("1.5", "1.14", "1.14", "2.3", "2.4", "2.9", "2.11", "2.15"),
    "DEPTHWISE_CONV_2D": ("1.5", "1.12", "1.14", "2.2", "2.3", "2.3", "2.11"),
    "DEQUANTIZE": ("1.13", "1.14", "1.15", "2.2", "2.7"),
    "FULLY_CONNECTED": ("1.5", "1.10", "1.14", "1.14", "2.0", "2.1", "2.3", "2.3", "2.3", "2.11",
                        "2.15", "2.17", "2.18"),
    "LOGISTIC": ("1.14", "1.14", "2.3"),
    "MAX_POOL_2D": ("1.5", "1.14", "2.3"),
    "MEAN": ("1.6", "1.14", "2.4"),
    "MUL": ("1.5", "1.14", "1.15", "2.3", "2.6", "2.11"),
    "PAD": ("1.5", "1.14", "2.4", "2.6"),
    "PADV2": ("1.9", "1.14", "2.4", "2.6"),
    "QUANTIZE": ("1.14", "1.14", "2.7", "2.13"),
    "RESHAPE": ("1.5",),
    "SOFTMAX": ("1.5", "1.14", "2.3"),
    "TRANSPOSE": ("1.6", "1.14", "1.15", "2.3", "2.4", "2.12", "2.14"),
}  # fmt: skip


def oldest_runtime(versions: Mapping[str, int]) -> str:
    """`2.4` for operators and their versions; "" if one of them isn't in the table."""
    needed = []
    for kind, version in versions.items():
        releases = _RELEASES.get(kind, ())
        if not 1 <= version <= len(releases):
            return ""
        needed.append(_numbers(releases[version - 1]))
    return _text(max(needed, default=()))


def newer(first: str, second: str) -> str:
    """The newer of two releases such as `2.4.0` and `2.10`, as `2.10`; "" stands for unknown."""
    return _text(max(_numbers(first), _numbers(second)))


def _numbers(release: str) -> tuple[int, ...]:
    parts = release.split(".")[:2]
    return tuple(map(int, parts)) if all(p.isascii() and p.isdigit() for p in parts) else ()


def _text(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
