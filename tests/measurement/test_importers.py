"""What other tools wrote becomes reports: figures counted by hand, and never called valid."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeres.commands import check, compare
from edgeres.errors import BadInput
from edgeres.measurement import budgets, importers
from edgeres.measurement.compare import Tolerance
from edgeres.measurement.importers import _report
from edgeres.text import files as text

TRT_LOG = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx
[11/21/2026-12:00:00] [I] Selected Device: Orin
[11/21/2026-12:00:00] [I] TensorRT version: 10.3.0
[11/21/2026-12:00:01] [I] Engine built in 104.774 sec.
[11/21/2026-12:00:01] [I] Engine deserialized in 0.21022 sec.
[11/21/2026-12:00:05] [I] Timing trace has 2437 queries over 3.00 s
[11/21/2026-12:00:05] [I] Latency: min = 1.2 ms, max = inf ms, mean = 1.25 ms, median = 1.24 ms, percentile(90%) = 1.3 ms, percentile(99%) = 1.4 ms
[11/21/2026-12:00:05] [I] GPU Compute Time: min = 1 ms, max = 2 ms, mean = 1.1 ms, median = 1.125 ms, percentile(90%) = 1.2 ms
[11/21/2026-12:00:05] [W] * GPU compute time is unstable, with coefficient of variance = 2.3%.
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec
"""  # noqa: E501
AI_HUB = {
    "execution_summary": {
        "estimated_inference_time": 1250, "estimated_inference_peak_memory": 22_000_000,
        "first_load_time": 500_000, "warm_load_time": 90_000, "compile_time": 2_000_000,
        "inference_memory_peak_range": [0, 22_000_000], "all_first_load_times": [500_000, 510_000],
        "all_inference_times": [1300, 1250.5, 1275],
    },
    "execution_detail": [
        {"name": "conv", "type": "Conv2d", "compute_unit": "NPU", "execution_cycles": 9},
        {"name": "add", "type": "Add", "compute_unit": "NPU"},
        {"name": "softmax", "type": "Softmax", "compute_unit": "CPU"},
    ],
}  # fmt: skip
TFLITE = """\
INFO: STARTING!
INFO: count=2 first=339304 curr=266325 min=266325 max=339304 avg=302814 std=36489
INFO: count=50 first=1340 curr=1345 min=1320 max=1502 avg=1341.2 std=21 p5=1325 median=1338 p95=1380
INFO: Inference timings in us: Init: 20283, First inference: 339304, Warmup (avg): 302814, Inference (avg): 1341.2
INFO: Memory footprint delta from the start of the tool (MB): init=10 overall=22
"""  # noqa: E501


def proto(median: float | None) -> bytes:
    """A BenchmarkResult: name, latencies in ms, memory, runs."""

    def floats(**values: tuple[int, float]) -> bytes:
        return b"".join(bytes([n << 3 | 5]) + struct.pack("<f", v) for n, v in values.values())

    latency = floats(avg=(1, 1.5), low=(2, 1.25), high=(3, 2.0), init=(8, 20.0), first=(9, 3.0))
    latency += floats(median=(5, median)) if median else b""
    misc = b"\x10\x32"  # num_runs = 50
    return (b"\x0a\x01m" + b"\x12" + bytes([len(latency)]) + latency
            + b"\x22" + bytes([len(misc)]) + misc)  # fmt: skip


def write(path: Path, content: object) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def only(path: Path) -> dict:
    """The one report of a file."""
    (report,) = importers.of_file(path)
    return checked(report)


def checked(report: dict) -> dict:
    """Every imported report has all fields of a measured one, and isn't valid."""
    assert report["valid"] is False and report["reasons"][0] == _report.UNKNOWN_STATE
    assert {"target", "file_sha256", "size_bytes", "latency", "cold", "state_before",
            "state_after", "runtime", "build", "notes", "emulated", "measured_at", "device",
            "preset", "threads", "settings", "memory", "energy", "accuracy", "source",
            } <= set(report)  # fmt: skip
    json.dumps(report, allow_nan=False)
    return report


def test_a_log_of_trtexec(tmp_path: Path) -> None:
    report = only(write(tmp_path / "orin.log", TRT_LOG))
    assert (report["source"], report["target"]) == ("trtexec", "orin")
    latency = report["latency"]
    assert (latency["median_ns"], latency["p90_ns"], latency["n"]) == (1_240_000, 1_300_000, 2437)
    assert (latency["min_ns"], latency["max_ns"]) == (1_200_000, None)  # it said inf
    assert latency["percentile_method"] == "trtexec's own, per session"
    assert report["runtime"] == {
        "name": "TensorRT", "version": "10.3.0", "tool": "trtexec", "accelerator": "Orin",
        "gpu_compute_median_ns": 1_125_000,
    }  # fmt: skip
    assert (latency["p95_ns"], latency["p99_ns"]) == (None, 1_400_000)
    assert report["build"] == {"seconds": 104.774, "cached": False}
    assert report["cold"]["load_ns"] == [210_220_000]
    failed = write(tmp_path / "failed.log", TRT_LOG.replace("PASSED", "FAILED"))
    assert "trtexec doesn't say PASSED" in only(failed)["reasons"]
    assert latency["batch"] is None and "one session: no interval" in report["notes"]
    assert "it doesn't tell the batch: a query is taken as one image" in report["notes"]


TRT_7 = """\
&&&& RUNNING TensorRT.trtexec # trtexec --onnx=m.onnx --batch=4
[07/18/2020-12:00:01] [I] Timing trace has 1530 queries over 3.00 s
[07/18/2020-12:00:05] [I] Host Latency
[07/18/2020-12:00:05] [I] min: 1.25 ms (end to end 1.5 ms)
[07/18/2020-12:00:05] [I] max: 3.5 ms (end to end 4.5 ms)
[07/18/2020-12:00:05] [I] mean: 1.75 ms (end to end 2.5 ms)
[07/18/2020-12:00:05] [I] median: 1.5 ms (end to end 2.25 ms)
[07/18/2020-12:00:05] [I] percentile: 2.5 ms at 99% (end to end 3.5 ms at 99%)
[07/18/2020-12:00:05] [I] throughput: 0 qps
[07/18/2020-12:00:05] [I] Enqueue Time
[07/18/2020-12:00:05] [I] min: 0.125 ms
[07/18/2020-12:00:05] [I] median: 0.25 ms
[07/18/2020-12:00:05] [I] GPU Compute
[07/18/2020-12:00:05] [I] min: 1 ms
[07/18/2020-12:00:05] [I] median: 1.25 ms
&&&& PASSED TensorRT.trtexec # trtexec
"""


def test_a_log_of_tensorrt_7(tmp_path: Path) -> None:
    report = only(write(tmp_path / "7.log", TRT_7))
    latency = report["latency"]
    assert (latency["median_ns"], latency["p99_ns"], latency["p90_ns"]) == (1.5e6, 2.5e6, None)
    assert (latency["min_ns"], latency["max_ns"], latency["n"]) == (1.25e6, 3.5e6, 1530)
    assert report["runtime"]["gpu_compute_median_ns"] == 1.25e6
    assert latency["batch"] == 4 and report["reasons"] == [_report.UNKNOWN_STATE]


RUNNING = "&&&& RUNNING TensorRT.trtexec [TensorRT v8602] # trtexec"


@pytest.mark.parametrize(
    ("line", "batch"),
    [
        (f"{RUNNING} --onnx=m --shapes=input:8x3x9x9", 8),
        (f"{RUNNING} --shapes=a:0:16x3x9x9,b:2x1", 16),
        (f"{RUNNING} --shapes=2x3x416x416", 2), (f"{RUNNING} --deploy=p --batch=32", 32),
        ("[05/01/2021-10:00:00] [I] Batch: 64", 64),
        ("[05/01/2021-10:00:00] [I] Batch: Explicit", None),
        ("[05/01/2024-10:00:00] [I] Input inference shape : x=4x3x9x9", 4),
        ("[05/01/2022-10:00:00] [I] Input inference shapes: model", None),
        ("[05/01/2023-10:00:00] [I] Input binding for x with dimensions 3x3x6x6 is created.", 3),
        ("[05/01/2022-10:00:00] [I] Created input binding for x with dimensions 5x3x9x9", 5),
    ],
)  # fmt: skip
def test_the_batch_of_a_query(tmp_path: Path, line: str, batch: int | None) -> None:
    body = TRT_LOG.split("\n", 1)[1]
    assert only(write(tmp_path / "b.log", f"{line}\n{body}"))["latency"]["batch"] == batch


def test_a_log_of_several_runs(tmp_path: Path) -> None:
    slower = TRT_LOG.replace("median = 1.24 ms", "median = 1.5 ms")
    report = only(write(tmp_path / "twice.log", TRT_LOG + slower))  # one command: two sessions
    assert report["latency"]["session_medians_ns"] == [1_240_000, 1_500_000]
    assert report["latency"]["sessions"] == 2 and report["latency"]["median_ci_ns"]
    assert report["cold"]["load_ns"] == [210_220_000] * 2
    assert not any("no interval" in note for note in report["notes"])
    other = slower.replace("--onnx=m.onnx", "--onnx=n.onnx --shapes=input:8x3x9x9")
    reports = importers.of_file(write(tmp_path / "two.log", "noise\n" + TRT_LOG + other))
    assert [r["target"] for r in map(checked, reports)] == ["two#1", "two#2"]
    assert [r["latency"]["batch"] for r in reports] == [None, 8]
    assert reports[1]["notes"][0] == "measured: trtexec --onnx=n.onnx --shapes=input:8x3x9x9"
    failed = slower.split("[11/21/2026-12:00:05] [I] Latency")[0]  # stopped before its summary
    assert only(write(tmp_path / "cut.log", failed + TRT_LOG))["latency"]["sessions"] == 1


def test_times_of_trtexec(tmp_path: Path) -> None:
    rows = [{"startComputeMs": i, "computeMs": 1, "latencyMs": 1 + i / 100} for i in range(100)]
    report = only(write(tmp_path / "t.json", rows))
    latency = report["latency"]
    assert (latency["n"], latency["min_ns"], latency["max_ns"]) == (100, 1_000_000, 1_990_000)
    assert latency["median_ns"] == 1_495_000
    assert latency["percentile_method"] == "MLPerf early stopping"


def test_a_profile_of_ai_hub(tmp_path: Path) -> None:
    report = only(write(tmp_path / "p.json", AI_HUB))
    assert report["latency"]["median_ns"] == 1_275_000
    assert (report["latency"]["min_ns"], report["latency"]["n"]) == (1_250_500, 3)
    assert report["cold"] == {"load_ns": [500_000_000, 510_000_000], "first_ns": []}
    assert report["memory"] is None  # an estimate of the network's own, not of a process
    assert report["runtime"]["accelerator"] == "cpu+npu"
    assert report["notes"] == ["1 of 3 layers on CPU", "2 of 3 layers on NPU",
                               "it compiled the file in 2000.000 ms",
                               "a warm load takes 90.000 ms", "it estimates a peak of 22.0 MB",
                               "it doesn't tell the batch: a query is taken as one image",
                               "one session: no interval"]  # fmt: skip
    alone = {"execution_summary": {"estimated_inference_time": 1250}}
    report = only(write(tmp_path / "p.json", alone))
    assert report["latency"] is None
    assert report["notes"][0] == "it estimates an inference at 1.250 ms"


def test_the_text_of_benchmark_model(tmp_path: Path) -> None:
    report = only(write(tmp_path / "pixel.txt", TFLITE))
    latency = report["latency"]
    assert (latency["median_ns"], latency["n"]) == (1_338_000, 50)
    assert (latency["min_ns"], latency["max_ns"]) == (1_320_000, 1_502_000)
    assert report["cold"] == {"load_ns": [20_283_000], "first_ns": [339_304_000]}
    assert report["memory"] is None and "its memory grew by 23.1 MB" in report["notes"]
    peak = "INFO: Overall peak memory footprint (MB) via periodic monitoring: 54.25\n"
    report = only(write(tmp_path / "peak.txt", TFLITE + peak))
    assert report["memory"]["peak_rss_bytes"] == 54.25 * (1 << 20)


TFLITE_2019 = """\
STARTING!
Num threads: [4]
Graph: [mobilenet.tflite]
Input shapes: [{batch},224,224,3]
Loaded model mobilenet.tflite
Initialized session in 1.236ms
Running benchmark for at least 1 iterations and at least 0.5 seconds
count=5 first=115937 curr=114000 min=113000 max=115937 avg=114893 std=700

Running benchmark for at least 50 iterations and at least 1 seconds
count=50 first=115000 curr=115100 min=114000 max=116000 avg=115127 std=200

Average inference timings in us: Warmup: 114893, Init: 1236, no stats: 115127
"""


def test_what_benchmark_model_printed_in_2019(tmp_path: Path) -> None:
    report = only(write(tmp_path / "2019.txt", TFLITE_2019.format(batch=1)))
    assert report["cold"] == {"load_ns": [1_236_000], "first_ns": [115_937_000]}
    assert report["latency"] is None
    assert report["notes"] == ["its mean is 115.127 ms; it tells no median"]
    twice = TFLITE_2019.format(batch=1) + TFLITE_2019.format(batch=8)
    reports = importers.of_file(write(tmp_path / "twice.txt", twice))
    assert [r["target"] for r in map(checked, reports)] == ["twice#1", "twice#2"]


@pytest.mark.parametrize(
    "prefix",
    [
        "05-30 15:16:44.858  3380  3381 I tflite  : ",
        "I/tflite  ( 3380): ",
        "2024-05-30 15:16:44.858123  3380  3380 I litert: ",
    ],
)
def test_what_comes_through_logcat(tmp_path: Path, prefix: str) -> None:
    other = prefix.replace("tflite", "Camera").replace("litert", "Camera")
    lines = [prefix + line + f"\n{other}count=9 first=1 curr=1 min=1 max=1 avg=1 median=1 std=0"
             for line in TFLITE.splitlines()]  # fmt: skip
    report = only(write(tmp_path / "logcat.txt", "\n".join(lines)))
    plain = only(write(tmp_path / "logcat.txt", TFLITE))
    assert report == plain and plain["latency"]["median_ns"] == 1_338_000


def test_the_result_file_of_benchmark_model(tmp_path: Path) -> None:
    report = only(write(tmp_path / "r.pb", proto(1.375)))
    assert report["latency"]["median_ns"] == 1_375_000 and report["latency"]["n"] == 50
    assert report["cold"] == {"load_ns": [20_000_000], "first_ns": [3_000_000]}
    older = only(write(tmp_path / "r.pb", proto(None)))
    assert older["latency"] is None
    assert older["notes"][0] == "its mean is 1.500 ms; it tells no median"


def test_a_real_profile_of_onnxruntime(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "relu.onnx")
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(tmp_path / "relu.onnx", options)
    for _ in range(80):
        session.run(None, {"x": np.zeros((1, 4), np.float32)})
    path = Path(session.end_profiling())
    report = only(path)
    assert report["runtime"]["provider"] == "CPUExecutionProvider"
    assert report["latency"]["n"] == 79 and len(report["cold"]["first_ns"]) == 1
    assert report["latency"]["p90_ns"] >= report["latency"]["median_ns"] > 0
    assert report["cold"]["load_ns"][0] > 0
    assert any("profiling was on" in reason for reason in report["reasons"])
    events = path.read_text().splitlines()
    cut = write(tmp_path / "cut.json", "\n".join(events[:-4]))  # killed in the middle
    assert 0 < only(cut)["latency"]["n"] < 79


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b"{}", b"hello", b"\x0a\xff\xff\xff\xff", b"\x12\x05\x0d",
     b"[" * 10**5,
     b'{"execution_summary": []}', b'{"execution_summary": ' * 5000, b'[{"latencyMs": "x"}]',
     b'[{"cat": "Session", "name": "model_run", "dur": -1}]', b"count=1 count=2",
     b'[{"latencyMs": 1e999, "x": 1' + b"0" * 10_000 + b"}]"],
)  # fmt: skip
def test_what_is_no_result_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "a\nb.json", content)
    with pytest.raises(BadInput, match="no known tool's results; known: Qualcomm AI Hub"):
        importers.of_file(path)


def test_files_that_can_t_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="no such file"):
        importers.of_file(tmp_path / "missing")
    with pytest.raises(BadInput, match="is a folder"):
        importers.of_file(tmp_path)
    with pytest.raises(BadInput, match=r"can't be read \(embedded null byte"):
        importers.of_file(tmp_path / "a\0b")
    monkeypatch.setattr(_report, "_LARGEST", 100)
    with pytest.raises(BadInput, match="larger than 100 bytes"):
        importers.of_file(write(tmp_path / "large", b"x" * 101))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["execution_summary", "execution_detail", "all_inference_times", "cat",
                         "name", "dur", "args", "provider", "latencyMs", "startComputeMs",
                         "compute_unit", "estimated_inference_peak_memory"]),
        inner | st.sampled_from(["Session", "model_run"]), max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES.map(json.dumps).map(str.encode) | st.binary(max_size=200)
       | st.binary(max_size=60).map(b"\x12".__add__))  # fmt: skip
def test_garbage_is_a_report_or_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "data", data)
    try:
        reports = importers.of_file(path)
    except BadInput:
        return
    assert reports and all(map(checked, reports))


@pytest.mark.parametrize(
    "a", [TRT_LOG, TRT_7, TFLITE, TFLITE_2019, AI_HUB, proto(None), proto(1.5)]
)
@pytest.mark.parametrize("b", [TRT_LOG + TRT_7, TFLITE_2019, AI_HUB])
def test_every_import_is_checked_and_compared(tmp_path: Path, a: object, b: object) -> None:
    first, second = write(tmp_path / "a.log", a), write(tmp_path / "b.log", b)
    limits = write(tmp_path / "limits.yaml", "budgets: [" + ", ".join(
        f"{{{name}: 1}}" for name in budgets.MEASURES) + "]")  # fmt: skip
    for allowed in (False, True):
        found = check.checked(str(first), limits, tmp_path, None, None, allowed)
        assert {r["measure"] for r in found["results"]} == set(budgets.MEASURES)
        assert all(r["reason"] for r in found["results"] if r["verdict"] == "not measurable")
        text.check(found)
        with contextlib.suppress(BadInput):  # nothing in common: a sentence
            both = compare.compared([str(first), str(second)], Tolerance(), ["host"], "quick",
                                    tmp_path, True, allowed)  # fmt: skip
            assert allowed or both["verdict"] == "not measurable"
            text.compare(both), text.compare_markdown(both)
