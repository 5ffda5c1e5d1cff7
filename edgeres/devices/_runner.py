"""The one file that is pushed to a device: runs one model file there, says what it saw.

In: a model file and its inputs as .npy, already encoded in the file's dtype and layout. Out: one
JSON object per line on stdout, each with an "event" key; the last is "done", or "error" with exit
status 1. It stands alone on Python 3.8 with numpy and the runtime of the file: nothing of edgeres
is imported, because a board has none of it.

A query is one inference of batch 1: input handed over, inference, output available as an array.
"""

from __future__ import annotations

import argparse
import gc
import glob
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata

MEMORY_INFERENCES = 10
RUNTIMES = (
    "ai-edge-litert",
    "tflite-runtime",
    "tensorflow",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
)
clock = time.perf_counter_ns


def emit(event, **values):
    """Print one event as a JSON line."""
    print(json.dumps({"event": event, **values}), flush=True)


def version(package):
    """The installed version of a package, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def install(package):
    """The command that installs a package for this very Python."""
    return f"`{sys.executable} -m pip install {package}`"


# --- runtimes: a runtime is imported first, so that its import is no part of the load time


class Tflite:
    """Runs .tflite files on the CPU (XNNPACK is on by default in all three packages)."""

    PACKAGES = (
        ("ai-edge-litert", "ai_edge_litert.interpreter"),
        ("tflite-runtime", "tflite_runtime.interpreter"),
        ("tensorflow", "tensorflow.lite"),
    )

    def __init__(self, args):
        self.threads = args.threads
        for package, module in self.PACKAGES:
            if version(package):
                self.interpreter_class = importlib.import_module(module).Interpreter
                self.info = {"name": package, "version": version(package)}
                return
        names = ", ".join(package for package, _ in self.PACKAGES)
        raise RuntimeError(
            f"no runtime for .tflite files is installed here; install one of {names}: "
            + install("ai-edge-litert")
        )

    def load(self, path):
        interpreter = self.interpreter_class(model_path=path, num_threads=self.threads)
        interpreter.allocate_tensors()
        source = only("input", interpreter.get_input_details())["index"]
        sink = only("output", interpreter.get_output_details())["index"]

        def query(batch):
            interpreter.set_tensor(source, batch)
            interpreter.invoke()
            return interpreter.get_tensor(sink)

        return query


class Onnx:
    """Runs .onnx files on one execution provider of onnxruntime."""

    def __init__(self, args):
        if not version("onnxruntime") and not version("onnxruntime-gpu"):
            raise RuntimeError(
                "no runtime for .onnx files is installed here; install onnxruntime: "
                + install("onnxruntime")
            )
        self.ort = importlib.import_module("onnxruntime")
        if hasattr(self.ort, "disable_telemetry_events"):
            self.ort.disable_telemetry_events()
        if args.provider not in self.ort.get_available_providers():
            known = ", ".join(self.ort.get_available_providers())
            raise RuntimeError(f"onnxruntime has no provider {args.provider} here; it has {known}")
        self.provider, self.threads = args.provider, args.threads
        self.info = {"name": "onnxruntime", "version": self.ort.__version__}
        self.info["provider"] = args.provider

    def load(self, path):
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # On x86 without VNNI the kernels for int8 cut large sums; this option has others there.
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            session = self.ort.InferenceSession(path, options, providers=[self.provider])
        except Exception as error:  # of a file whose weights share a zero point
            if "replace the existing tensor" not in str(error):
                raise
            options.add_session_config_entry("session.x64quantprecision", "0")
            self.info["cuts_sums"] = True
            session = self.ort.InferenceSession(path, options, providers=[self.provider])
        if session.get_providers()[0] != self.provider:
            raise RuntimeError(f"onnxruntime could not use the provider {self.provider}")
        source = only("input", session.get_inputs()).name
        sinks = [only("output", session.get_outputs()).name]
        return lambda batch: session.run(sinks, {source: batch})[0]


def only(kind, tensors):
    """The single element of `tensors`."""
    if len(tensors) != 1:
        raise ValueError(f"the model has {len(tensors)} {kind}s, only one is supported")
    return tensors[0]


def runtime(args):
    """Import the runtime that the file's suffix asks for."""
    suffix = os.path.splitext(args.model)[1]
    classes = {".tflite": Tflite, ".onnx": Onnx}
    if suffix not in classes:
        raise ValueError(f"no runtime for '{suffix}' files; known: {', '.join(sorted(classes))}")
    return classes[suffix](args)


def load_inputs(path):
    """The batch-1 inputs, in the order of the file."""
    try:
        import numpy as np
    except ImportError:
        raise RuntimeError("numpy is not installed here; install it: " + install("numpy")) from None

    inputs = np.load(path, allow_pickle=False)
    if inputs.ndim < 2 or not len(inputs):
        raise ValueError(f"the inputs need a batch axis with at least one sample: {inputs.shape}")
    return [np.ascontiguousarray(inputs[i : i + 1]) for i in range(len(inputs))]


# --- modes


class WarmUp:
    """Whether latencies have settled: a fast and a slow moving average stay within 4 %.

    Source: androidx.benchmark WarmupManager (fast 0.1, slow 0.005, more than 40 similar iterations).
    """

    def __init__(self, min_iterations, min_seconds, max_seconds):
        self.min_iterations = min_iterations
        self.min_ns, self.max_ns = min_seconds * 1e9, max_seconds * 1e9
        self.count = self.similar = self.total_ns = 0
        self.fast = self.slow = 0.0
        self.stable = False

    def finished(self, ns):
        """Take the next latency; True once it is stable or the time is up."""
        self.count += 1
        self.total_ns += ns
        if self.count == 1:
            self.fast = self.slow = float(ns)
        else:
            self.fast += 0.1 * (ns - self.fast)
            self.slow += 0.005 * (ns - self.slow)
            alike = abs(self.fast - self.slow) < 0.04 * self.slow
            self.similar = self.similar + 1 if alike else 0
        enough = self.count >= self.min_iterations and self.total_ns >= self.min_ns
        self.stable = enough and self.similar > 40
        return self.stable or self.total_ns >= self.max_ns


def latency(args):
    """Load, first inference, warm-up, then one query after the other until both minima are met."""
    inputs = load_inputs(args.inputs)
    engine = runtime(args)
    started = clock()
    query = engine.load(args.model)
    emit("loaded", load_ns=clock() - started, runtime=engine.info)

    gc.collect()
    gc.disable()  # a collection in the middle of a query would be counted as its latency
    started = clock()
    query(inputs[0])
    emit("first", first_ns=clock() - started)

    warm = WarmUp(args.warmup_iterations, args.warmup_min_seconds, args.warmup_max_seconds)
    ns, position = 0, 0
    while position == 0 or not warm.finished(ns):
        batch = inputs[position % len(inputs)]
        started = clock()
        query(batch)
        ns = clock() - started
        position += 1
    emit("warm", count=warm.count, stable=warm.stable)

    samples, begun = [], clock()
    min_ns, max_ns = args.min_seconds * 1e9, args.max_seconds * 1e9
    elapsed = 0
    while (elapsed < min_ns or len(samples) < args.min_queries) and elapsed < max_ns:
        batch = inputs[len(samples) % len(inputs)]
        started = clock()
        query(batch)
        ended = clock()
        samples.append(ended - started)
        elapsed = ended - begun
    emit("samples", ns=samples)


def accuracy(args):
    """Run every input once and write the outputs, (N, ...), to --outputs."""
    import numpy as np

    inputs = load_inputs(args.inputs)
    engine = runtime(args)
    query = engine.load(args.model)
    np.save(args.outputs, np.concatenate([query(batch) for batch in inputs]), allow_pickle=False)
    emit("outputs", count=len(inputs), runtime=engine.info)


def memory(args):
    """Load and run a few inferences, or with --null neither, and report the peak resident size."""
    inputs = load_inputs(args.inputs)
    engine = runtime(args)
    if not args.null:
        query = engine.load(args.model)
        for i in range(MEMORY_INFERENCES):
            query(inputs[i % len(inputs)])
    peak, definition = peak_rss()
    emit("memory", peak_rss_bytes=peak, definition=definition)


def peak_rss():
    """The high-water mark of resident memory in bytes, and where it was read.

    VmHWM first: after fork and exec, Linux lets ru_maxrss start at the parent's mark.
    """
    for line in (read("/proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024, "VmHWM of a fresh process"
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * unit, "ru_maxrss of a fresh process"


# --- the state of the device; None or empty where it can't be read


def state(args):
    """Report what this machine is and how it is doing now."""
    cpuinfo = read("/proc/cpuinfo") or ""
    cpu, machine = cpu_model(cpuinfo), platform.machine()
    meminfo = dict(x.split(":", 1) for x in (read("/proc/meminfo") or "").splitlines() if ":" in x)
    available = meminfo.get("MemAvailable", "").split()
    affinity = getattr(os, "sched_getaffinity", None)
    emit(
        "state",
        machine=machine,
        cpu_model=cpu,
        cores=len(affinity(0)) if affinity else os.cpu_count(),
        system=platform.system(),
        release=platform.release(),
        python=platform.python_version(),
        runtimes={name: version(name) for name in RUNTIMES if version(name)},
        frequency=frequencies(),
        capacities=capacities(),
        **throttled(),
        throttle_count=total("/sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"),
        cooling_state=cooling(),
        temperatures_c=temperatures(),
        loadavg=list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        busy_cores=busy_cores(),
        memory_available_bytes=int(available[0]) * 1024 if available else None,
        power_source=power_source(),
        virtualized=" hypervisor " in cpuinfo,
        emulated=emulated(machine, cpu, cpuinfo),
    )


def read(path):
    """The text of a small system file, None if it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def number(path):
    """The integer in a system file, None if there is none."""
    try:
        return int(read(path) or "")
    except ValueError:
        return None


def total(pattern):
    """The sum of the integers in the files that match, None if there is no such file."""
    values = [value for value in map(number, glob.glob(pattern)) if value is not None]
    return sum(values) if values else None


def sysctl(name):
    """One value of macOS's sysctl, "" elsewhere."""
    if sys.platform != "darwin":
        return ""
    done = subprocess.run(["sysctl", "-n", name], stdout=subprocess.PIPE, timeout=5, check=False)
    return done.stdout.decode("utf-8", "replace").strip()


def cpu_model(cpuinfo):
    """The processor's name: x86 calls it model name, boards Model or Hardware or only a part."""
    fields = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    board = read("/proc/device-tree/model")
    names = [fields.get(key) for key in ("model name", "Model", "Hardware", "CPU part")]
    names += [sysctl("machdep.cpu.brand_string"), board and board.strip("\0"), platform.processor()]
    return next((name for name in names if name), "unknown")


def frequencies():
    """Per frequency domain: governor, current and highest allowed frequency."""
    return {
        os.path.basename(folder): {
            "governor": read(folder + "/scaling_governor"),
            "khz": number(folder + "/scaling_cur_freq"),
            "max_khz": number(folder + "/scaling_max_freq"),
        }
        for folder in sorted(glob.glob("/sys/devices/system/cpu/cpufreq/policy*"))
    }


def capacities():
    """Per processor what it can do, the strongest being 1024: its cluster; empty if all are alike."""
    pattern = "/sys/devices/system/cpu/cpu*/cpu_capacity"
    return {path.split("/")[-2]: number(path) for path in sorted(glob.glob(pattern))}


def throttled():
    """What the firmware of a Raspberry Pi says: slowed down now, and all its bits (16-19: since boot)."""
    try:
        done = subprocess.run(
            ["vcgencmd", "get_throttled"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=False,
        )  # fmt: skip
        bits = int(done.stdout.decode("ascii", "replace").strip().partition("throttled=")[2], 16)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {"throttled_now": None, "throttled_bits": None}
    # under-voltage, frequency capped, throttled, soft temperature limit
    return {"throttled_now": bool(bits & 0xF), "throttled_bits": bits}


def temperatures():
    """Degrees Celsius per thermal zone."""
    zones = {}
    for folder in sorted(glob.glob("/sys/class/thermal/thermal_zone*")):
        millidegrees = number(folder + "/temp")
        if millidegrees is not None:
            kind = read(folder + "/type") or "zone"
            zones[os.path.basename(folder) + ":" + kind] = millidegrees / 1000
    return zones


def cooling():
    """How far the kernel is slowing the processors down (0: not at all), None if it does not say."""
    states = []
    for folder in glob.glob("/sys/class/thermal/cooling_device*"):
        kind = read(folder + "/type") or ""
        if kind == "Processor" or "cpufreq" in kind:
            states.append(number(folder + "/cur_state") or 0)
    return sum(states) if states else None


def busy_cores(interval_s=0.25):
    """How many cores are busy right now, measured over a short while; None if it can't be read.

    The load average would still remember the training that ended a second ago.
    """

    def ticks():
        values = [int(x) for x in (read("/proc/stat") or "").split("\n")[0].split()[1:9]]
        return sum(values), sum(values[3:5])  # all, and idle + waiting for disks

    before = ticks()
    time.sleep(interval_s)
    after = ticks()
    elapsed, idle = after[0] - before[0], after[1] - before[1]
    return round((os.cpu_count() or 1) * (1 - idle / elapsed), 2) if elapsed > 0 else None


def power_source():
    """ "mains", "battery", or None where neither is visible."""
    supplies = glob.glob("/sys/class/power_supply/*")
    if any(read(s + "/type") == "Mains" and number(s + "/online") == 1 for s in supplies):
        return "mains"
    batteries = [read(s + "/status") for s in supplies if read(s + "/type") == "Battery"]
    return ("battery" if "Discharging" in batteries else "mains") if batteries else None


def emulated(machine, cpu, cpuinfo):
    """Whether the processor is translated in software (qemu-user, qemu TCG, Rosetta)."""
    handler = read("/proc/sys/fs/binfmt_misc/qemu-" + machine) or ""
    foreign = machine.startswith(("arm", "aarch")) and "vendor_id" in cpuinfo
    rosetta = sysctl("sysctl.proc_translated") == "1"
    known = handler.startswith("enabled") or foreign or "TCG" in cpu or rosetta
    return known or "qemu" in interpreter_of_this()


def interpreter_of_this():
    """The program that runs this one, as another process sees it: qemu shows itself to others only."""
    try:
        done = subprocess.run(
            ["cat", "/proc/%d/cmdline" % os.getpid()],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.split(b"\0")[0].decode("utf-8", "replace")


MODES = {"latency": latency, "accuracy": accuracy, "memory": memory, "state": state}


def main(argv=None):
    """Perform one mode; returns the exit status."""
    parser = argparse.ArgumentParser(description="run one model file on this device")
    parser.add_argument("--mode", choices=sorted(MODES), required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--inputs", default="")
    parser.add_argument("--outputs", default="outputs.npy")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--provider", default="CPUExecutionProvider")
    parser.add_argument("--min-queries", type=int, default=64)
    parser.add_argument("--min-seconds", type=float, default=0.5)
    parser.add_argument("--max-seconds", type=float, default=10.0)
    parser.add_argument("--warmup-iterations", type=int, default=30)
    parser.add_argument("--warmup-min-seconds", type=float, default=0.25)
    parser.add_argument("--warmup-max-seconds", type=float, default=8.0)
    parser.add_argument("--null", action="store_true", help="memory: import the runtime only")
    args = parser.parse_args(argv)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        MODES[args.mode](args)
    except Exception as error:  # whatever it is, the other side must get it as an event
        emit("error", message=f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
        return 1
    emit("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
