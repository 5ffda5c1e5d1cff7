"""Arm Ethos-U: Vela compiles for the NPU and estimates memory and cycles. It computes no answers.

The NPU rounds as TFLite's reference kernels do: ask `tflm` for the answers.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

SUMMARY = "Arm Ethos-U NPUs, by Vela"
NAMES = {
    f"ethos-u{name}": f"ethos-u{name}"
    for name in ("55-32", "55-64", "55-128", "55-256", "65-256", "65-512",
                 "85-128", "85-256", "85-512", "85-1024", "85-2048")
}  # fmt: skip
TAKES = ("tflite-int8", "tflite-int16x8")
HOW = "Vela"
COMPILED = dict.fromkeys(
    NAMES, "compiled; memory and cycles are Vela's estimates, answers are tflm's"
)
LICENCE = "Apache-2.0"
ESTIMATES = True
LIMITS: dict[str, float] = {}


def ask(question: Any) -> dict[str, Any]:
    """See `runtimes.Module`."""
    import importlib.metadata

    said = subprocess.run(
        [sys.executable, "-I", "-m", "ethosu.vela", question.file, "--show-cpu-operations",
         "--accelerator-config", question.option, "--output-dir", question.folder],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    text = said.stdout + said.stderr
    counts = {who: int(n) for who, n in re.findall(r"^(CPU|NPU) operators = (\d+)", text, re.M)}
    if said.returncode or len(counts) < 2:
        last = text.strip().splitlines() or ["nothing"]
        return {"error": f"Vela can't compile it; its last words: {last[-1][:200]}"}
    (written,) = Path(question.folder).glob("*_summary_*.csv")
    with written.open(encoding="utf-8") as file:
        row = list(csv.DictReader(file))[-1]
    written.unlink()
    kib = {"SRAM": row["sram_memory_used"], "DRAM": row["dram_memory_used"],
           "on-chip flash": row["on_chip_flash_memory_used"],
           "off-chip flash": row["off_chip_flash_memory_used"]}  # fmt: skip
    version = importlib.metadata.version("ethos-u-vela")
    return {
        "version": f"Vela {version}",
        "device": f"{row['system_config']}, {row['memory_mode']}",
        "taken": counts["NPU"], "refused": _refused(text, counts["CPU"]),
        "memory_bytes": {k: round(float(v) * 1024) for k, v in kib.items() if float(v)},
        "cycles": round(float(row["cycles_total"])),
        "latency_ns": round(float(row["inference_time"]) * 1e9),
    }  # fmt: skip


def _refused(text: str, count: int) -> list[str]:
    """A sentence for each operator that the CPU has to compute."""
    lines = text.splitlines()
    found = []
    for i, line in enumerate(lines):
        if named := re.match(r"Warning \(.*?\) operator: (\w+), ofm: '(.*?)'", line):
            why = lines[i + 1].removeprefix("Reason: ") if i + 1 < len(lines) else ""
            found.append(f"{named[1]} {_short(named[2])}: {_short(why, 120)}")
        elif named := re.match(r"(?:Warning|Info): (\w+) '(.*?)' is (?:not supported|a CPU)", line):
            found.append(f"{named[1]} {_short(named[2])}")
    left = count - len(found)
    return found[: max(count, 0)] + [f"{left} more operators"] * (left > 0)


def _short(name: str, most: int = 60) -> str:
    return name if len(name) <= most else f"{name[: most // 2 - 2]}...{name[-most // 2 + 2 :]}"
