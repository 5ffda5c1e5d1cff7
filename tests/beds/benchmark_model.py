"""A stand-in for benchmark_model that really runs LiteRT underneath.

In: the flags of TFLite's or LiteRT's program (KIND, set by `write`). Out: their exact lines, split
between stdout and stderr as theirs, and the result file. It runs on the ARM board's Python.
"""

import struct
import sys
import time
from pathlib import Path

KIND = "classic"
COMMON = {
    "graph": "", "num_runs": "50", "min_secs": "1", "max_secs": "150", "num_threads": "-1",
    "warmup_runs": "1", "warmup_min_secs": "0.5", "report_peak_memory_footprint": "false",
    "memory_footprint_check_interval_ms": "50", "result_file_path": "", "use_gpu": "false",
}  # fmt: skip
FLAGS = {
    "classic": {**COMMON, "input_layer": "", "input_layer_shape": "", "input_layer_value_files": "",
                "output_filepath": "", "use_xnnpack": "false", "use_nnapi": "false",
                "disable_nnapi_cpu": "true"},
    "litert": {**COMMON, "use_cpu": "true", "use_npu": "false", "dispatch_library_path": ""},
}  # fmt: skip


def write(path, kind):
    """This file as the program of one kind, ready to be pushed."""
    text = Path(__file__).read_text("utf-8")
    text = text.replace('KIND = "classic"', f'KIND = "{kind}"', 1)
    path.write_text("#!/usr/bin/python3\n" + text)
    path.chmod(0o755)
    return path


def info(text):
    print("INFO: " + text, flush=True)


def results(line, text):
    print(f"INFO: [benchmark_litert_model.h:{line}] {text}", file=sys.stderr, flush=True)


def flags():
    """The values; --help, like any mistake, ends the program with status 1."""
    known = dict(FLAGS[KIND])
    for argument in sys.argv[1:]:
        name, _, value = argument.removeprefix("--").partition("=")
        if argument == "--help":
            usage = "".join(f"\t--{n}={v}\tstring\toptional\t\n" for n, v in known.items())
            fail(f"usage: {sys.argv[0]} <flags>\nFlags:\n{usage}")
        if name not in known:
            print(f"WARN: Unconsumed cmdline flags: {argument}")
        known[name] = value
    return known


def fail(text):
    print(f"ERROR: {text}\nERROR: Benchmarking failed.", file=sys.stderr)
    sys.exit(1)


def measure(run, count, seconds, limit):
    """Latencies in us, and their line."""
    info(f"Running benchmark for at least {count} iterations and at least {seconds:g} seconds but "
         f"terminate if exceeding {limit:g} seconds.")  # fmt: skip
    begun, samples = time.monotonic(), []
    while (len(samples) < count or time.monotonic() - begun < seconds) and (
        time.monotonic() - begun <= limit
    ):
        started = time.monotonic()
        run()
        samples.append(int((time.monotonic() - started) * 1e6))
    info(line_of(samples))
    return samples


def line_of(us):
    if not us:
        return "count=0"
    if min(us) == max(us):
        return f"count={len(us)} curr={us[-1]}" + ("(all same)" if len(us) > 1 else "")
    mean = sum(us) / len(us)
    std = (sum((x - mean) ** 2 for x in us) / len(us)) ** 0.5
    line = f"count={len(us)} first={us[0]} curr={us[-1]} min={min(us)} max={max(us)} avg={mean:g}"
    return f"{line} std={std:.0f} p5={at(us, 5)} median={at(us, 50)} p95={at(us, 95)}\n"


def at(us, percent):
    return sorted(us)[len(us) * percent // 100]


def number(field, value):
    return bytes([field << 3 | 5]) + struct.pack("<f", value)


def message(field, body):
    return bytes([field << 3 | 2, len(body)]) + body


def integer(field, value):
    out = bytes([field << 3])
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def save(path, init_us, warm, us, peak_mib):
    mean = sum(us) / len(us)
    figures = [mean, min(us), max(us), 0, at(us, 50), at(us, 5), at(us, 95), init_us, warm[0],
               sum(warm) / len(warm)]  # fmt: skip
    latency = b"".join(number(i + 1, x / 1000) for i, x in enumerate(figures))
    memory = integer(1, 4096) + integer(2, 8192) + (number(3, peak_mib) if peak_mib else b"")
    misc = number(1, 0.01) + integer(2, len(us)) + integer(3, len(warm))
    Path(path).write_bytes(message(2, latency) + message(3, memory) + message(4, misc))


def main():
    given = flags()
    if not given["graph"]:
        fail("Please specify the name of your TF Lite input file with --graph")
    if KIND == "classic":
        info("STARTING!")
        info(f"Num threads: [{given['num_threads']}]")
        info(f"Graph: [{given['graph']}]")
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    started = time.monotonic()
    try:
        interpreter = Interpreter(given["graph"], num_threads=int(given["num_threads"]))
        interpreter.allocate_tensors()
    except Exception:
        fail(f"Failed to load model {given['graph']}")
    init_us = int((time.monotonic() - started) * 1e6)
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    delegates(given)
    info(f"Initialized session in {init_us / 1e3:g}ms.")

    data = np.random.default_rng(0).random(source["shape"]).astype(source["dtype"])
    if given.get("input_layer_value_files"):
        shape = [int(n) for n in given["input_layer_shape"].split(",")]
        raw = Path(given["input_layer_value_files"].partition(":")[2]).read_bytes()
        if len(raw) != data.nbytes:
            fail(f"The size of the file is {len(raw)} bytes. It should be {data.nbytes} bytes.")
        data = np.frombuffer(raw, source["dtype"]).reshape(shape)
    interpreter.set_tensor(source["index"], data)
    limit = float(given["max_secs"])
    warm = measure(interpreter.invoke, int(given["warmup_runs"]), float(given["warmup_min_secs"]),
                   limit)  # fmt: skip
    us = measure(interpreter.invoke, int(given["num_runs"]), float(given["min_secs"]), limit)
    peak = 54.2 if given["report_peak_memory_footprint"] == "true" else 0
    report(init_us, warm or [0], us, peak)
    if given.get("output_filepath"):
        Path(given["output_filepath"]).write_bytes(interpreter.get_tensor(sink["index"]).tobytes())
    if given["result_file_path"]:
        save(given["result_file_path"], init_us, warm or [0], us, peak)


def delegates(given):
    """As on a phone whose GPU takes nothing."""
    if KIND == "classic":
        if given["use_gpu"] == "true":
            info("Though GPU delegate is explicitly applied, the model graph will not be executed "
                 "by the delegate.")  # fmt: skip
        info("Created TensorFlow Lite XNNPACK delegate for CPU.")
        if given["use_xnnpack"] == "true":
            info("Explicitly applied XNNPACK delegate, and the model graph will be completely "
                 "executed by the delegate.")  # fmt: skip
    else:
        print("INFO: Replacing 1 out of 1 node(s) with delegate (TfLiteXNNPackDelegate) node, "
              "yielding 1 partitions for subgraph 0.", file=sys.stderr)  # fmt: skip


def report(init_us, warm, us, peak):
    mean, warm_mean = sum(us) / len(us), sum(warm) / len(warm)
    if KIND == "classic":
        info(f"Inference timings in us: Init: {init_us}, First inference: {warm[0]}, "
             f"Warmup (avg): {warm_mean:g}, Inference (avg): {mean:g}")  # fmt: skip
        info("Memory footprint delta from the start of the tool (MB): init=4 overall=8")
        if peak:
            info(f"Overall peak memory footprint (MB) via periodic monitoring: {peak}")
        return
    print("INFO: [benchmark_litert_model.h:93] \n========== BENCHMARK RESULTS ==========",
          file=sys.stderr)  # fmt: skip
    results(94, f"Model initialization: {init_us / 1000:.2f} ms")
    results(95, f"Warmup (first):       {warm[0] / 1000:.2f} ms")
    results(97, f"Warmup (avg):         {warm_mean / 1000:.2f} ms ({len(warm)} runs)")
    results(99, f"Inference (avg):      {mean / 1000:.2f} ms ({len(us)} runs)")
    results(103, f"Inference (min):      {min(us) / 1000:.2f} ms")
    results(105, f"Inference (max):      {max(us) / 1000:.2f} ms")
    results(107, "Inference (std):      0.04")
    results(125, "Init footprint:       4.00 MB")
    results(127, "Overall footprint:    8.00 MB")
    if peak:
        results(132, f"Peak memory:          {peak:.2f} MB")
    results(135, "======================================\n")


if __name__ == "__main__":
    main()
