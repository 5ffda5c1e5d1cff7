"""`edgeres --help` and the lists start without the heavy libraries."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "onnx", "onnxruntime", "ai_edge_litert", "litert_torch", "coremltools",
         "nncf", "torchao", "tensorflow", "sklearn", "PIL"}  # fmt: skip
PROBE = """
import json, sys
sys.argv = ["edgeres", *{arguments!r}]
from edgeres.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("\\n" + json.dumps(sorted({{m.split(".")[0] for m, there in sys.modules.items() if there}})))
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["list", "targets"], ["list", "devices"], ["list", "recipes"],
     ["--version"]],
)  # fmt: skip
def test_light_commands_load_no_heavy_library(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(arguments=arguments)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(json.loads(done.stdout.strip().splitlines()[-1]))
    assert not loaded & HEAVY
    assert "edgeres" in loaded


def test_help_does_not_load_pydantic_either() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(arguments=["--help"])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not {"pydantic", "yaml", "rich"} & set(json.loads(done.stdout.splitlines()[-1]))
