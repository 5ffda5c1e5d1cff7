"""What programs on devices print when all is well, as the fuzzer's starting points."""

from __future__ import annotations

from beds import phone
from beds.jetson_board import MODES, ORIN_NANO, RELEASE

TRTEXEC = b"""\
&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --loadEngine=m.plan
[11/21/2026-12:00:00] [I] Selected Device: Orin
[11/21/2026-12:00:00] [I] TensorRT version: 10.3.0
[11/21/2026-12:00:01] [I] Engine built in 12.5 sec.
[11/21/2026-12:00:01] [I] Engine deserialized in 0.02 sec.
[11/21/2026-12:00:04] [W] * GPU compute time is unstable, with coefficient of variance = 5%.
[11/21/2026-12:00:04] [I] Timing trace has 300 queries over 3.01 s
[11/21/2026-12:00:04] [I] Latency: min = 1.1 ms, max = 2.2 ms, mean = 1.3 ms, median = 1.2 ms, \
percentile(90%) = 1.5 ms, percentile(95%) = 1.6 ms, percentile(99%) = 1.9 ms
[11/21/2026-12:00:04] [I] GPU Compute Time: min = 1 ms, max = 2 ms, mean = 1.2 ms, median = 1.1 ms, \
percentile(90%) = 1.4 ms
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec --loadEngine=m.plan
"""
LAYERS = [
    b'{"Layers": [{"Name": "conv "1"", "LayerType": "CaskConvolution", "Weights": {"Type": "Int8"}, '
    b'"Inputs": [{"Format/Datatype": "Int8 NC/32HW32"}]}], "Bindings": ["in", "out"]}',
    b'[{"name" : "logits", "dimensions" : "1x10", "values" : [0.5, nan, -inf, 1e-3]}]\n',
    b'[{ "startH2dMs" : 0.1, "startComputeMs" : 0.2, "computeMs" : 1.0, "latencyMs" : 1.2 }]',
]
BENCHMARK_MODEL = b"""\
INFO: Num threads: [4]
INFO: Replacing 31 out of 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions
INFO: Initialized session in 20.2ms.
INFO: count=50 first=1340 curr=1345 min=1320 max=1502 avg=1341.2 std=21
INFO: Inference timings in us: Init: 20283, First inference: 339304, Warmup (avg): 302814, \
Inference (avg): 1341.2
INFO: Memory footprint delta from the start of the tool (MB): init=10.5 overall=22.5
INFO: Overall peak memory footprint (MB) via periodic monitoring: 54.25
INFO: [benchmark_litert_model.h:99] Inference (avg):      29.44 ms (5 runs)
"""
TEGRA = [ORIN_NANO.format(vdd_in=4500).encode(), MODES.encode(), RELEASE.encode(),
         b"NV Power Mode: MAXN_SUPER\n2\n"]  # fmt: skip
ANDROID = [
    ("#thermal\n" + phone.THERMAL.format(status=0) + "#battery\n" + phone.BATTERY).encode(),
    b"#cores\n0-7\n#cpuinfo\nprocessor : 0\nHardware : Tensor G3\n#meminfo\nMemAvailable: 5678 kB\n"
    b"#loadavg\n1.5 2 0.25 3/900 77\n#stat\ncpu  10 0 10 80 0 0 0 0 0 0\ncpu  35 0 35 130 0 0 0 0 0 0\n"
    b"#frequency\npolicy0|0 1 2 3|schedutil|300000|1800000\n#zones\nthermal_zone0|cpu|41500\n"
    b"#getprop\n[ro.product.model]: [Pixel 8]\n[ro.build.version.sdk]: [34]\n",
]
RUNNER = [
    b'{"event": "state", "cpu_model": "x", "cores": 4, "machine": "aarch64", "system": "Linux", '
    b'"release": "6.1", "emulated": false, "runtimes": {"tflite_runtime": "2.14"}, "loadavg": [0.1, 0, 0]}\n'
    b'noise\n{"event": "done"}\n'
]
