"""Stands in for NVIDIA's trtexec of TensorRT 8, 10 or 11: its flags, log lines and JSON files.

An "engine" is a line that names its TensorRT, and the ONNX file, which onnxruntime computes for
--exportOutput. Times are made up, from the flags that matter: copies, CUDA graph. The folder
`state` beside it says which TensorRT this is (`tensorrt`) and what shall go wrong.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import time
from pathlib import Path

STATE = Path(__file__).with_name("state")
COMMON = """
--onnx --saveEngine --loadEngine --skipInference --shapes --profilingVerbosity --warmUp --duration
--iterations --avgRuns --percentile --infStreams --idleTime --loadInputs --exportTimes
--exportProfile --exportLayerInfo --exportOutput --dumpProfile --device --memPoolSize --useDLACore
--allowGPUFallback --timingCacheFile --help
"""
FLAGS = {
    8: "--fp16 --int8 --best --calib --noDataTransfers --useCudaGraph --useSpinWait "
    "--separateProfileRun",
    10: "--fp16 --int8 --best --calib --stronglyTyped --noDataTransfers --useCudaGraph "
    "--useSpinWait --separateProfileRun",
    11: "--stronglyTyped --includeDataTransfers --noCudaGraph --noSpinWait --loadRefOutputs "
    "--accuracyAlgorithm",
}
VERSION = (STATE / "tensorrt").read_text().strip()
MAJOR, MINOR, PATCH = map(int, VERSION.split("."))
NUMBER = MAJOR * 10000 + MINOR * 100 + PATCH if MAJOR >= 10 else MAJOR * 1000 + MINOR * 100 + PATCH
NAME = f"TensorRT.trtexec [TensorRT v{NUMBER}]" + (" [b9]" if MAJOR >= 11 else "")


def say(text: str, level: str = "I") -> None:
    stream = sys.stderr if level == "E" else sys.stdout
    print(f"[11/21/2026-12:00:00] [{level}] {text}", file=stream, flush=True)


def end(word: str) -> None:
    print(f"&&&& {word} {NAME} # {' '.join(sys.argv)}", flush=True)
    sys.exit({"PASSED": 0, "FAILED": 1, "WAIVED": 0}[word])


def fail(text: str) -> None:
    say(text, "E")
    end("FAILED")


def said(name: str) -> bool:
    return (STATE / name).exists()


def options() -> dict[str, str]:
    found = {}
    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        if key not in f"{COMMON} {FLAGS[MAJOR]}".split():
            print("=== Help ===\n" * 3)
            fail(f"Unknown option: {key} {value}")
        found[key] = value
    return found


def named(value: str) -> tuple[str, str]:
    """'x':1x4 -> x, 1x4: a name in quotes may hold a colon."""
    parts = value.split("'")
    if len(parts) == 3:
        return parts[1], parts[2][1:]
    name, _, rest = value.rpartition(":")
    return name, rest


def build(flags: dict[str, str]) -> bytes:
    data = Path(flags["--onnx"]).read_bytes()
    if not importlib.util.find_spec("onnx"):  # a small board: it takes what it is given
        return f"ENGINE {VERSION}\n".encode() + data
    import onnx

    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
    except Exception:
        fail("Failed to parse onnx file")
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if quantized and MAJOR < 10 and "--int8" not in flags:
        fail("Int8 precision has been set for a layer or layer output, but int8 is not configured")
    static = all(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    if static and "--shapes" in flags:
        fail("Static model does not take explicit shapes since the shape of inference tensors will "
             "be determined by the model itself")  # fmt: skip
    if not static and "--shapes" not in flags:
        say("Dynamic dimensions required for input, but no shapes were provided.", "W")
    say("Engine built in 12.5 sec.")
    layers(flags, model)
    return f"ENGINE {VERSION}\n".encode() + data


def layers(flags: dict[str, str], model: object) -> None:
    if "--exportLayerInfo" not in flags or flags.get("--profilingVerbosity") != "detailed":
        return
    makers = {name: n.op_type for n in model.graph.node for name in n.output}
    rows = []
    for node in model.graph.node:
        row = {"Name": "@", "LayerType": "NoOp", "Inputs": [], "Outputs": []}
        if node.op_type == "Conv":
            integer = makers.get(node.input[1]) == "DequantizeLinear"
            kind = "FP16" if said("float_convolutions") or not integer else "Int8"
            tensor = {"Name": "a", "Location": "Device", "Dimensions": [-1, 3],
                      "Format/Datatype": "N/A due to dynamic shapes"}  # fmt: skip
            row |= {"LayerType": "CaskConvolution", "ParameterType": "Convolution",
                    "Inputs": [tensor], "Weights": {"Type": kind, "Count": 27}}  # fmt: skip
        rows.append(json.dumps(row).replace("@", node.name))  # it doesn't escape names
    text = '{"Layers": [' + ",\n".join(rows) + '],\n"Bindings": ["x", "y"]}'
    Path(flags["--exportLayerInfo"]).write_text(text)


def load(flags: dict[str, str]) -> bytes:
    head, _, data = Path(flags["--loadEngine"]).read_bytes().partition(b"\n")
    if head.decode("utf-8", "replace") != f"ENGINE {VERSION}":
        say("[TRT] IRuntime::deserializeCudaEngine: Error Code 1: Serialization", "E")
        fail("Engine set up failed")
    say("Engine deserialized in 0.0125 sec.")
    return data


def infer(flags: dict[str, str], data: bytes) -> None:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # float32 between Q and DQ: without VNNI, onnxruntime's integer kernels cut large sums.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options)
    value = session.get_inputs()[0]
    kinds = {"tensor(float)": "float32", "tensor(int8)": "int8", "tensor(uint8)": "uint8"}
    kind = np.dtype(kinds[value.type])
    shape = [d if isinstance(d, int) else 1 for d in value.shape]
    if "--shapes" in flags:
        name, text = named(flags["--shapes"])
        shape = [int(d) for d in text.split("x")]
    name, path = named(flags["--loadInputs"])
    if name != value.name:
        fail(f"Input tensor {name} not found")
    raw = Path(path).read_bytes()
    if len(raw) != int(np.prod(shape)) * kind.itemsize:
        fail(f"Mismatched file size: {len(raw)}")
    result = session.run(None, {name: np.frombuffer(raw, kind).reshape(shape)})[0]
    values = ", ".join(f"{x:g}" for x in result.ravel())
    dims = "x".join(map(str, result.shape))
    Path(flags["--exportOutput"]).write_text(
        f'[\n  {{ "name" : "{session.get_outputs()[0].name}"\n  , "dimensions" : "{dims}"\n'
        f'  , "values" : [ {values} ]\n  }}\n]\n'
    )


def measure(flags: dict[str, str]) -> None:
    copies = "--includeDataTransfers" in flags if MAJOR >= 11 else "--noDataTransfers" not in flags
    graph = "--noCudaGraph" not in flags if MAJOR >= 11 else "--useCudaGraph" in flags
    compute, copy = 1.0 if graph else 1.4, 0.125 if copies else 0.0
    asked, seconds = int(flags.get("--iterations", 10)), int(flags.get("--duration", 3))
    count = max(asked, min(seconds * 100, 400))
    rows, clock = [], float(flags.get("--warmUp", 200))
    if MAJOR < 10:  # the warm-up is among them
        rows, clock = [(0.0, 50.0, copy)], clock
    rows += [(clock + i * 2.0, compute + (i % 10) / 100, copy) for i in range(count)]
    say(f"Warmup completed 80 queries over {flags.get('--warmUp', 200)} ms")
    say(f"Timing trace has {count} queries over 3.00 s")
    each = [
        f'{{ "startEnqMs" : {start:g}, "endEnqMs" : {start:g}, "startH2dMs" : {start:g}, '
        f'"endH2dMs" : {start:g}, "startComputeMs" : {start:g}, "endComputeMs" : {start:g}, '
        f'"startD2hMs" : {start:g}, "endD2hMs" : {start:g}, "h2dMs" : {h2d:g}, '
        f'"computeMs" : {ms:g}, "d2hMs" : {h2d:g}, "latencyMs" : {ms + 2 * h2d:g} }}'
        for start, ms, h2d in rows
    ]
    if "--exportTimes" in flags and not said("no_times"):
        Path(flags["--exportTimes"]).write_text("[\n  " + "\n, ".join(each) + "\n]\n")
    say("=== Performance summary ===")
    say("Throughput: 812.3 qps")
    low, high, mid, p90 = (x + 2 * copy for x in (compute, compute + 0.09, compute + 0.045,
                                                  compute + 0.09))  # fmt: skip
    say(f"Latency: min = {low:g} ms, max = {high:g} ms, mean = {mid:g} ms, median = {mid:g} ms, "
        f"percentile(90%) = {p90:g} ms, percentile(95%) = {p90:g} ms, "
        f"percentile(99%) = {p90:g} ms")  # fmt: skip
    say(
        f"GPU Compute Time: min = {compute:g} ms, max = {high:g} ms, mean = {compute:g} ms, "
        f"median = {compute + 0.045:g} ms, percentile(90%) = {compute:g} ms"
    )
    say("Total Host Walltime: 3.00 s")
    say("* GPU compute time is unstable, with coefficient of variance = 2.3%.", "W")


def main() -> None:
    with (STATE / "calls").open("a") as log:
        log.write(f"trtexec {' '.join(sys.argv[1:])}\n")
    print(f"&&&& RUNNING {NAME} # {' '.join(sys.argv)}", flush=True)
    if "--help" in sys.argv:
        print("=== Help ===")
        return
    if said("hang"):
        time.sleep(300)
    if said("garbage"):
        os.write(1, bytes(range(256)) * 40)
        return
    flags = options()
    say("Selected Device: Orin")
    say(f"TensorRT version: {VERSION}")
    for word in ("FAILED", "WAIVED"):
        if said(word.lower()):
            say("[TRT] Error Code 2: OutOfMemory (Requested size was 999 bytes.)", "E")
            end(word)
    data = load(flags) if "--loadEngine" in flags else build(flags)
    if "--saveEngine" in flags:
        Path(flags["--saveEngine"]).write_bytes(data)
    data = re.sub(rb"^ENGINE [^\n]*\n", b"", data)
    if "--skipInference" in flags:
        say("Skipped inference phase since --skipInference is added.")
        end("PASSED")
    if "--exportOutput" in flags:
        infer(flags, data)
    measure(flags)
    end("PASSED")


main()
