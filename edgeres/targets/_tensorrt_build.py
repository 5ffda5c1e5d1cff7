"""Run by `tensorrt.accepts` in a process of its own: parse a file, build an engine, report.

The last line of standard output is a JSON list of sentences.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

_LARGEST_BATCH = 8


def refusals(path: str) -> list[str]:
    """What NVIDIA's parser and builder say against a file; empty if they build it."""
    trt: Any = importlib.import_module("tensorrt_rtx_bindings")
    said: list[str] = []

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                said.append(_sentence(message))

    builder = trt.Builder(logger := Logger())
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        return [_sentence(parser.get_error(i).desc()) for i in range(parser.num_errors)] or said
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1  # named, so that it needs no GPU
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        value = network.get_input(i)
        if -1 in tuple(value.shape):
            one, most = (tuple(n if s == -1 else s for s in value.shape)
                         for n in (1, _LARGEST_BATCH))  # fmt: skip
            profile.set_shape(value.name, one, one, most)
    config.add_optimization_profile(profile)
    if builder.build_serialized_network(network, config) is None:
        return said or ["no engine was built"]
    return []


def _sentence(message: str) -> str:
    return " ".join(str(message).split())[:300]


if __name__ == "__main__":
    answer = refusals(sys.argv[1])
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
