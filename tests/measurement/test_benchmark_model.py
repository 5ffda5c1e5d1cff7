"""benchmark_model on a phone: its figures, its outputs, its silent detours, and its failures."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beds import benchmark_model as program
from beds.phone import Phone
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_model import INPUTS, expected, write_tflite

from edgeres.disk import file_sha256
from edgeres.errors import DeviceError
from edgeres.measurement import protocol
from edgeres.measurement.protocol import Candidate, Measured
from edgeres.measurement.runners import Preset, Work, benchmark_model
from edgeres.measurement.runners import _benchmark_model_output as output
from edgeres.types import TensorSpec

INPUT, OUTPUT = TensorSpec("x:0", (1, 4), "float32", "NC"), TensorSpec("y", (1, 3), "float32", "NC")
SHORT = Preset(64, 0.01, 1.0, sessions=2)
CLASSIC = """\
INFO: STARTING!
INFO: Num threads: [4]
INFO: Graph: [/data/local/tmp/m.tflite]
INFO: Loaded model /data/local/tmp/m.tflite
INFO: The input model file size (MB): 11.98
INFO: Initialized session in 20.2ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if \
exceeding 150 seconds.
INFO: count=2 first=339304 curr=266325 min=266325 max=339304 avg=302814 std=36489
{count}
INFO: Inference timings in us: Init: 20283, First inference: 339304, Warmup (avg): 302814, \
Inference (avg): 1341.2
INFO: Note: as the benchmark tool itself affects memory footprint, ...
INFO: Memory footprint delta from the start of the tool (MB): init=10.5 overall=22.5
INFO: Overall peak memory footprint (MB) via periodic monitoring: 54.25
"""
COUNT = "INFO: count=50 first=1340 curr=1345 min=1320 max=1502 avg=1341.2 std=21"
LITERT = """\
INFO: [benchmark_litert_model.h:93] \n========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:94] Model initialization: 48.05 ms
INFO: [benchmark_litert_model.h:95] Warmup (first):       37.72 ms
INFO: [benchmark_litert_model.h:97] Warmup (avg):         37.72 ms (1 runs)
INFO: [benchmark_litert_model.h:99] Inference (avg):      29.44 ms (5 runs)
INFO: [benchmark_litert_model.h:103] Inference (min):      29.38 ms
INFO: [benchmark_litert_model.h:105] Inference (max):      29.49 ms
INFO: [benchmark_litert_model.h:107] Inference (std):      0.04
INFO: [benchmark_litert_model.h:115] Throughput:           4.88 MB/s
INFO: [benchmark_litert_model.h:125] Init footprint:       10.50 MB
INFO: [benchmark_litert_model.h:127] Overall footprint:    22.50 MB
INFO: [benchmark_litert_model.h:132] Peak memory:          54.25 MB
INFO: [benchmark_litert_model.h:134] ======================================
"""
MEMORY = {"init_bytes": 11010048, "overall_bytes": 23592960, "peak_bytes": 56885248}
TIMES = {"load_ns": 20283000, "first_ns": 339304000}
FIGURES = {"n": 50, "min_ns": 1320000, "max_ns": 1502000, "avg_ns": 1341200}


# --- text and protobuf


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (CLASSIC.format(count=COUNT), FIGURES | TIMES | MEMORY),
        (CLASSIC.format(count=COUNT + " p5=1325 median=1338 p95=1380"),
         FIGURES | TIMES | MEMORY | {"median_ns": 1338000, "p95_ns": 1380000}),
        (CLASSIC.format(count=COUNT).replace("INFO: ", ""), FIGURES | TIMES | MEMORY),
        (CLASSIC.format(count="INFO: count=1 curr=77"),
         TIMES | MEMORY | dict.fromkeys(("min_ns", "max_ns", "avg_ns", "median_ns"), 77000)
         | {"n": 1}),
        (CLASSIC.format(count="INFO: count=3 curr=7(all same)"),
         TIMES | MEMORY | dict.fromkeys(("min_ns", "max_ns", "avg_ns", "median_ns"), 7000)
         | {"n": 3}),
        (CLASSIC.format(count="INFO: count=0"), TIMES | MEMORY | {"n": 0}),
        (LITERT, {"n": 5, "avg_ns": 29440000, "min_ns": 29380000, "max_ns": 29490000,
                  "load_ns": 48050000, "first_ns": 37720000} | MEMORY),
        ("", {}), ("count=3\ncount=", {}), ("Inference (avg): nan ms (5 runs)", {"n": 5}),
    ],
)  # fmt: skip
def test_text(text: str, found: dict[str, int]) -> None:
    assert output.figures(text) == found


def proto(tmp_path: Path) -> bytes:
    program.save(tmp_path / "result.pb", 20283, [339304], [1340, 1320, 1502], 54.25)
    return (tmp_path / "result.pb").read_bytes()


def test_the_result_file_comes_before_the_text(tmp_path: Path) -> None:
    data = proto(tmp_path)
    found = output.figures(CLASSIC.format(count=COUNT), data)
    assert found["n"] == 3 and abs(found["load_ns"] - TIMES["load_ns"]) <= 2  # float32
    assert abs(found["median_ns"] - 1340000) <= 1 and found["overall_bytes"] == 8 << 20
    assert output.figures("", data) == found


def google_s_result() -> Any:
    """BenchmarkResult as a class of google.protobuf, from the schema alone."""
    pb = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    parts = {
        "Latency": ["avg_ms", "min_ms", "max_ms", "stddev_ms", "median_ms", "p5_ms", "p95_ms",
                    "init_ms", "first_inference_ms", "average_warm_up_ms"],
        "Memory": ["init_footprint_kb", "overall_footprint_kb", "peak_mem_mb"],
        "Misc": ["model_size_mb", "num_runs", "num_warmup_runs"],
    }  # fmt: skip
    file = pb.FileDescriptorProto(name="result.proto", package="t", syntax="proto2")
    result = file.message_type.add(name="Result")
    result.field.add(name="name", number=1, type=9, label=1)
    for at, (name, fields) in enumerate(parts.items()):
        part = file.message_type.add(name=name)
        for number, field in enumerate(fields):
            whole = {"_kb": 3, "uns": 5}.get(field[-3:], 2)  # int64, int32, float
            part.field.add(name=field, number=number + 1, type=whole, label=1)
        result.field.add(name=name.lower(), number=at + 2, type=11, label=1, type_name=f".t.{name}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Result"))


def test_the_result_file_is_read_as_google_writes_it() -> None:
    result = google_s_result()(name="x" * 200)
    result.latency.avg_ms, result.latency.min_ms, result.latency.max_ms = 2.5, 2.0, 64.0
    result.latency.median_ms, result.latency.init_ms = 2.25, 1024.0
    result.latency.first_inference_ms, result.latency.p95_ms = 8.0, 99.0
    result.memory.init_footprint_kb, result.memory.overall_footprint_kb = 300, 70000
    result.memory.peak_mem_mb, result.misc.num_runs = 54.25, 1024
    assert output.figures("", result.SerializeToString()) == {
        "avg_ns": 2500000, "min_ns": 2000000, "max_ns": 64000000, "median_ns": 2250000,
        "load_ns": 1024000000, "first_ns": 8000000, "init_bytes": 307200,
        "overall_bytes": 71680000, "peak_bytes": 56885248, "n": 1024,
    }  # fmt: skip
    result.memory.init_footprint_kb = -5  # a delta, which may be negative
    assert "init_bytes" not in output.figures("", result.SerializeToString())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_garbage_gives_no_wrong_figure(data: st.DataObject) -> None:
    lines = st.sampled_from([*CLASSIC.format(count=COUNT).splitlines(), *LITERT.splitlines(),
                             "count=99 curr=1e999 avg=nan min=-5", "Peak memory: e.e MB"]
    )  # fmt: skip
    text = "\n".join(data.draw(st.lists(lines | st.text(max_size=40), max_size=20)))
    raw = data.draw(st.binary(max_size=60))
    found = output.figures(text, raw)
    assert all(isinstance(value, int) and value >= 0 for value in found.values())
    output.kind(text)
    output.computed_by(text, "gpu")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 200), st.binary(max_size=8))
def test_a_damaged_result_file_keeps_what_precedes(
    tmp_path_factory: pytest.TempPathFactory, cut: int, tail: bytes
) -> None:
    whole = proto(tmp_path_factory.mktemp("proto"))
    found = output.figures("", whole[:cut])
    assert found.items() <= output.figures("", whole).items() or cut < len(whole)
    output.figures("", whole[:cut] + tail)


EXPLICIT = "Explicitly applied GPU delegate, and the model graph will be "
NONE = "INFO: Though NNAPI delegate is explicitly applied, the model graph will not be executed by"
REPLACED = "INFO: Replacing {} out of 62 node(s) with delegate ({}) node, yielding 5 partitions"


@pytest.mark.parametrize(
    ("text", "asked", "by", "doubt"),
    [
        ("", "cpu", "cpu", None),
        (REPLACED.format(62, "TfLiteXNNPackDelegate"), "cpu", "cpu", None),
        (REPLACED.format(5, "TfLiteGpuDelegateV2"), "cpu", "gpu+cpu", "took part"),
        (EXPLICIT + "completely executed by the delegate.", "gpu", "gpu", None),
        (EXPLICIT + "partially executed by the delegate w/ 2 delegate kernels.", "gpu", "gpu+cpu",
         "only a part"),
        (NONE, "nnapi", "cpu", "the CPU computed everything"),
        (REPLACED.format(62, "LITERT_CL"), "gpu", "gpu", None),
        (REPLACED.format(3, "LITERT_CL"), "gpu", "gpu+cpu", "only a part"),
        (REPLACED.format(62, "DispatchDelegate"), "npu", "npu", None),
        (REPLACED.format(62, "TfLiteXNNPackDelegate"), "gpu", None, "didn't say whether the gpu"),
    ],
)  # fmt: skip
def test_who_computed(text: str, asked: str, by: str | None, doubt: str | None) -> None:
    found, said = output.computed_by(text, asked)
    assert found == by and (doubt in (said or "") if doubt else said is None)


# --- on a phone


def work(folder: Path) -> Work:
    path = write_tflite(folder / "m.tflite")
    return Work(path, INPUTS, INPUT, OUTPUT, 1, folder)


def candidate(path: Path) -> Candidate:
    return Candidate("tflite:fp32", path, file_sha256(path), path.stat().st_size, INPUT, OUTPUT,
                     INPUTS, INPUTS[:2],
                     lambda raw: {"error": float(np.abs(raw - expected(INPUTS[:2])).max()),
                                  "n": len(raw)})  # fmt: skip


def script(path: Path, body: str) -> str:
    """A program that explains itself as TFLite's does, and then misbehaves."""
    usage = "".join(f"--{name}= " for name in program.FLAGS["classic"])
    path.write_text(f'#!/bin/sh\n[ "$1" = --help ] && {{ echo "{usage}" >&2; exit 1; }}\n{body}\n')
    return str(path)


def measured(phone: Phone, tmp_path: Path, tool: str, **more: Any) -> Measured:
    device = phone.open(tools={"benchmark_model": tool}, **more)
    return protocol.measure([candidate(work(tmp_path).path)], device, "quick")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(protocol.PRESETS, "quick", SHORT)


def test_tflite_s_program_is_measured(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(protocol.PRESETS, "quick", dataclasses.replace(SHORT, sessions=1))
    tool = str(program.write(tmp_path / "benchmark_model", "classic"))
    found = measured(phone, tmp_path, tool)
    (report,) = found.reports
    latency = report["latency"]
    assert found.failures == [] and found.samples == {"tflite:fp32": [[]]}
    assert latency["n"] >= 64 and latency["sessions"] == 1
    assert latency["percentile_method"] == "benchmark_model's own, per session"
    assert 0 < latency["min_ns"] <= latency["median_ns"] <= latency["max_ns"]
    assert len(report["cold"]["load_ns"]) == len(report["cold"]["first_ns"]) == 1
    assert report["memory"]["peak_rss_bytes"] > report["memory"]["baseline_rss_bytes"]
    assert report["accuracy"]["n"] == 2 and report["accuracy"]["error"] < 1e-5
    assert report["runtime"] == {
        "name": "TFLite benchmark_model", "version": file_sha256(Path(tool))[:12],
        "tool": "benchmark_model", "accelerator": "cpu", "requested": "cpu",
    }  # fmt: skip
    assert report["state_before"]["runtimes"]["benchmark_model"].startswith("sha256 ")
    assert report["emulated"] and not report["valid"]


def test_litert_s_program_is_measured_and_a_detour_noticed(phone: Phone, tmp_path: Path) -> None:
    tool = str(program.write(tmp_path / "benchmark_model", "litert"))
    device = phone.open(tools={"benchmark_model": tool}, accelerator="gpu")
    loaded = benchmark_model.load(device, work(tmp_path))
    session = loaded.session(SHORT)
    assert session.n >= 64 and session.median_ns and session.load_ns
    assert session.runtime["name"] == "LiteRT benchmark_model"
    assert session.runtime["accelerator"] is None and session.runtime["requested"] == "gpu"
    assert session.unsteady == ["benchmark_model didn't say whether the gpu computed anything"]
    assert loaded.outputs(INPUTS) is None
    other = dataclasses.replace(device.profile, accelerator="nnapi")
    device.profile = other  # type: ignore[misc]
    with pytest.raises(DeviceError, match="knows no accelerator 'nnapi', only cpu, gpu, npu"):
        benchmark_model.load(device, work(tmp_path))


def test_text_alone_will_do_and_a_mean_is_named_as_such(phone: Phone, tmp_path: Path) -> None:
    text = CLASSIC.format(count=COUNT)
    there = script(tmp_path / "old", f"cat <<'END'\n{text}END")
    device = phone.open(tools={"benchmark_model": there})
    session = benchmark_model.load(device, work(tmp_path)).session(SHORT)
    assert (session.n, session.median_ns, session.load_ns) == (50, 1341200, 20283000)
    assert "tells no median" in session.unsteady[0]
    remote = f"device:{device.push(Path(there))}"
    device.profile = dataclasses.replace(  # type: ignore[misc]
        device.profile, tools={"benchmark_model": remote}
    )
    loaded = benchmark_model.load(device, work(tmp_path))
    assert loaded.digest == file_sha256(Path(there))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("head -c 3000 /dev/urandom", "gave no result"),
        ("exit 0", "gave no result: exit status 0, it said nothing"),
        ("echo INFO: count=0; echo INFO: count=0", "gave no result.*count=0"),
        ("echo 'ERROR: Failed to load model' >&2; exit 1", "failed: exit status 1.*Failed to load"),
        ("kill -9 $$", "failed: signal 9"),
    ],
)
def test_a_program_that_gives_no_result(phone: Phone, tmp_path: Path, body: str, says: str) -> None:
    device = phone.open(tools={"benchmark_model": script(tmp_path / "tool", body)})
    loaded = benchmark_model.load(device, work(tmp_path))
    with pytest.raises(DeviceError, match=f"device 'phone': benchmark_model {says}"):
        loaded.session(SHORT)


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        (None, "its profile names no benchmark_model; add"),
        ("nowhere/tool", "there is no benchmark_model at 'nowhere.*docs/devices"),
        ("device:/data/nothing", "can't be used as benchmark_model.*not found"),
        ("/bin/true", "can't be used as benchmark_model there.*built for the device's processor"),
    ],
)
def test_a_program_that_isnt_there(
    phone: Phone, tmp_path: Path, tool: str | None, says: str
) -> None:
    device = phone.open(tools={"benchmark_model": tool} if tool else {})
    with pytest.raises(DeviceError, match=f"device 'phone': .*{says}"):
        benchmark_model.load(device, work(tmp_path))


@pytest.mark.parametrize("mishap", ["hangs", "is unplugged"])
def test_what_was_measured_until_then_is_kept(
    phone: Phone, tmp_path: Path, mishap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first session works, the second doesn't end, or not on a phone that is there."""
    monkeypatch.setattr(benchmark_model, "STARTUP_S", 3.0)
    text = CLASSIC.format(count=COUNT)
    once = f"[ -e once ] && exec sleep 305.5; : >once; cat <<'END'\n{text}END"
    tool = script(tmp_path / "tool", once)
    if mishap == "is unplugged":
        monkeypatch.setattr(benchmark_model, "STARTUP_S", 60.0)
        threading.Thread(target=unplug_at, args=(phone, "sleep 305.5"), daemon=True).start()
    found = measured(phone, tmp_path, tool, emulated=False)
    (failure,), (report,) = found.failures, found.reports
    assert failure["device"] == "phone"
    assert ("did not finish in 5 s" if mishap == "hangs" else "cut") in failure["message"]
    assert report["latency"]["sessions"] == 1 and not report["valid"]
    assert any("ended early" in reason for reason in report["reasons"])
    assert phone.left_running("sleep 305.5") == []


def unplug_at(phone: Phone, text: str) -> None:
    while not phone.left_running(text):
        pass
    phone.daemon.cut()
    phone.plug()
