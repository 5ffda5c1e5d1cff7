"""Where something from outside comes in: what a good one looks like, and what takes it.

A surface's `feed` gives bytes to edgeres as a person's command would. It returns, or raises an
EdgeresError: a sentence. Anything else is a fault.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutate
import numpy as np
import yaml
from beds.bundles import verify_anew

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests" / "fixtures" / "run-v1.tar.xz"
_NATIVE = {"onnx-int8": "*.onnx", "tflite-int8": "*.tflite", "executorch-int8": "*.pte"}


@dataclass(frozen=True)
class Surface:
    """One way in.

    Attributes:
        seeds: good inputs; cases are changes of them.
        feed: gives a file to edgeres.
        suffix: of that file.
        bombs: fed as they are, once.
        native: its reader is C++, and works in a process of its own.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    feed: Callable[[Path], object]
    suffix: str = ""
    change: Callable[[bytes, random.Random], bytes] = mutate.mutated
    native: bool = False
    bombs: Callable[[], Sequence[bytes]] = tuple


@functools.cache
def run_folder(below: Path) -> Path:
    """The stored run of version 1, unpacked."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(below, filter="data")
    (lock,) = below.glob("runs/*/recipe.lock.yaml")
    return lock.parent


def all_of(scratch: Path) -> list[Surface]:
    """Every surface; `scratch` is a folder for what they need."""
    run = run_folder(scratch / "stored")
    return [*_texts(), *_results(run), *_devices(), *_pictures(), *_weights(run), *_bundles(scratch, run),
            *_models(run)]  # fmt: skip


# Recipes, budgets, profiles.


def _texts() -> list[Surface]:
    from edgeres import devices
    from edgeres.measurement import budgets

    recipes = [p.read_bytes() for p in sorted((ROOT / "recipes").glob("*.yaml"))]
    profiles = [p.read_bytes() for p in sorted((ROOT / "devices").glob("*.yaml"))]
    recipes.append(
        b"name: a\ndata: digits\ntrain: &t {epochs: 2}\nteacher: {model: resnet8, train: *t}\n"
    )
    profiles.append(b"name: a\nkind: ssh\ndescription: &d d\nsettings: {host: *d, <<: {port: 1}}\n")
    grown = b"budgets:\n- &a {target: tflite-int8, size_kb: 900}\n- *a\n- {<<: *a, size_kb: 1}\n"
    limits = b"budgets:\n- {target: tflite-int8, latency_median_ms: 5, size_kb: 900}\n- {accuracy: 0.9}\n"
    return [
        Surface("recipe", lambda: recipes, plan_of, ".yaml", bombs=lambda: doubling(b"name: a\n")),
        Surface("override", lambda: [b"prune.macs=0.5", b"data.size=[1, {a: b}]"], override),
        Surface("budgets", lambda: [limits, grown], budgets.load, ".yaml",
                bombs=lambda: doubling(b"budgets:\n- {size_kb: 1}\n")),
        Surface("device profile", lambda: profiles, devices.load, ".yaml",
                bombs=lambda: doubling(b"name: a\nkind: local\ndescription: d\n")),
    ]  # fmt: skip


def doubling(head: bytes) -> list[bytes]:
    """Documents that double at each of 60 levels: by aliases, by merge keys, in lists and mappings."""
    found = []
    for first, form in (
        ("{x: 1}", "{{<<: [*{0}, *{0}]}}"), ("{x: 1}", "{{<<: *{0}, y{1}: *{0}}}"),
        ("[x]", "[*{0}, *{0}]"), ("{x: 1}", "{{a: *{0}, b: *{0}}}"), ("{x: 1}", "{{? *{0} : *{0}}}"),
    ):  # fmt: skip
        lines = [f"a0: &a0 {first}"]
        lines += [f"a{i}: &a{i} {form.format(f'a{i - 1}', i)}" for i in range(1, 60)]
        found.append(head + "\n".join(lines).encode())
    return found


def plan_of(path: Path) -> object:
    """The plan of a recipe file, as `run --dry-run` makes it."""
    from edgeres import pipeline, recipe

    return pipeline.steps(recipe.load(path))


def override(path: Path) -> object:
    """A `--set` text."""
    from edgeres import recipe

    return recipe.load("quickstart", [path.read_bytes().decode("utf-8", "surrogateescape")])


# Results and the registry.


def _results(run: Path) -> list[Surface]:
    from edgeres import artifact
    from edgeres.commands import check, compare, results
    from edgeres.measurement import drift
    from edgeres.measurement.compare import Tolerance
    from edgeres.reporting import comparison
    from edgeres.text import files as text

    here = run.parent
    good = here / "good.json"
    good.write_bytes(_result())
    (here / "budgets.yaml").write_text("budgets:\n" + "".join(
        f"- {{{name}: 1}}\n" for name in ("latency_median_ms", "latency_p90_ms", "cold_start_ms", "memory_mb",
                                          "size_kb", "energy_mj", "accuracy", "accuracy_drop_points")
    ))  # fmt: skip

    def compared(path: Path) -> None:
        for pair in ((path, good), (good, path)):
            found = compare.compared([*map(str, pair)], Tolerance(), ["host"], "quick", here, True)
            comparison.render([found])

    def judged(path: Path) -> None:
        """What a file of results is for: limits, and a comparison with another."""
        for allowed in (False, True):
            text.check(check.checked(str(path), here / "budgets.yaml", here, None, None, allowed))
            for pair in ((path, log_file), (log_file, path)):
                text.compare(
                    compare.compared(
                        [*map(str, pair)], Tolerance(), ["host"], "quick", here, True, allowed
                    )
                )

    def described(path: Path) -> object:
        (path.parent / "artifact.json").write_bytes(path.read_bytes())
        return artifact.load(path.parent)

    description = next(run.glob("artifacts/teacher/artifact.json")).read_bytes()
    log = b"\n".join(b'{"top1": 1, "confidence": 0.5, "margin": 0.1, "entropy": 0.2, "brightness": 0.5, '
                     b'"mean": 0.5, "std": 0.2, "saturated": 0.1}' for _ in range(200))  # fmt: skip
    change = mutate.mutated_json
    trtexec, printed, hub, trace = _logs()
    (log_file := here / "good.log").write_bytes(trtexec)
    prefixed = [b"\n".join(mark + line for line in printed.splitlines())
                for mark in (b"05-30 15:16:44.857  3380  3380 I tflite  : ", b"I/tflite ( 33): ")]  # fmt: skip
    return [
        Surface("result: compare", lambda: [_result()], compared, ".json", change),
        Surface("result: check", lambda: [_result()],
                lambda p: check.checked(str(p), here / "budgets.yaml", here, None, None), ".json", change),
        Surface("result: reports", lambda: [_result()], lambda p: results.reports(str(p), here), ".json", change),
        Surface("artifact.json", lambda: [description], described, ".json", change),
        Surface("device log", lambda: [log], drift.read_log, ".jsonl"),
        Surface("import: text", lambda: [trtexec, trtexec * 2, printed, *prefixed], judged, ".log"),
        Surface("import: JSON", lambda: [hub, trace], judged, ".json", change),
        Surface("registry", lambda: [_entry()], _registered, ".json", change),
    ]  # fmt: skip


def _registered(path: Path) -> object:
    from edgeres import registry

    folder = path.parent / "runs" / registry._FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "000001.json").write_bytes(path.read_bytes())
    return registry.current(path.parent / "runs", "stable")


def _entry() -> bytes:
    return json.dumps({
        "number": 1, "channel": "stable", "action": "promote", "run": "v1-abcdef",
        "artifacts": {"data": "0" * 64}, "passed": True, "findings": [], "reason": "", "at": "2026-11-21",
    }).encode()  # fmt: skip


def _result() -> bytes:
    report = {
        "target": "tflite-int8", "device": "host", "size_bytes": 30_000, "file_sha256": "0" * 64,
        "latency": {"median_ns": 1000, "p90_ns": 1200, "p95_ns": 1300, "p99_ns": 1400, "sessions": 3, "n": 300,
                    "session_medians_ns": [990, 1000, 1010], "median_ci_ns": [990, 1010]},
        "cold": {"load_ns": [5, 6, 7], "first_ns": [8, 9, 10]}, "emulated": False, "valid": True, "reasons": [],
        "memory": {"peak_rss_bytes": 9_000_000, "baseline_rss_bytes": 5_000_000, "definition": "x"},
        "accuracy": {"correct": 90, "n": 100, "right": "ff" * 12 + "f0", "samples": "abc",
                     "against_float": {"lost": 1, "won": 2, "p": 0.5}},
        "energy": {"joules_per_inference": 0.01}, "runtime": {}, "state_before": {}, "state_after": {},
    }  # fmt: skip
    return json.dumps({"reports": [report], "failures": [], "samples": {}}).encode()


def _logs() -> tuple[bytes, bytes, bytes, bytes]:
    from measuring_texts import BENCHMARK_MODEL, TRTEXEC

    hub = {"execution_summary": {"estimated_inference_time": 900, "all_inference_times": [900, 901],
                                 "first_load_time": 5, "all_first_load_times": [5], "compile_time": 3,
                                 "estimated_inference_peak_memory": 1000},
           "execution_detail": [{"compute_unit": "NPU"}]}  # fmt: skip
    trace = [
        {"cat": "Session", "name": "model_run", "dur": 5, "args": {"provider": "CPU"}}
        for _ in range(4)
    ]
    return TRTEXEC, BENCHMARK_MODEL, json.dumps(hub).encode(), json.dumps(trace).encode()


# What devices print.


def _devices() -> list[Surface]:
    from measuring_texts import ANDROID, BENCHMARK_MODEL, LAYERS, RUNNER, TEGRA, TRTEXEC

    return [
        Surface("tegrastats and nvpmodel", lambda: TEGRA, _tegra),
        Surface("android's dumpsys and /proc", lambda: ANDROID, _android),
        Surface("trtexec", lambda: [TRTEXEC, *LAYERS], _trtexec),
        Surface(
            "benchmark_model",
            lambda: [BENCHMARK_MODEL, b"\x0a\x01x\x12\x09\x09\0\0\0\0\0\0\xf0\x3f"],
            _bm,
        ),
        Surface("the runner's events", lambda: RUNNER, _runner_said),
    ]


def _tegra(path: Path) -> None:
    from edgeres.devices import _tegra as tegra

    text = path.read_bytes().decode("utf-8", "replace")
    for parse in (tegra.stats, tegra.power_mode, tegra.power_modes, tegra.asks_to_reboot, tegra.clocks,
                  tegra.release, tegra.model):  # fmt: skip
        parse(text)
    found = tegra.stats(text)
    if found is not None:
        found.total_w()


def _android(path: Path) -> None:
    from edgeres.devices import _android as android
    from edgeres.devices import identity

    text = path.read_bytes().decode("utf-8", "replace")
    said = android.sections(text, "#")
    state = android.state(said | {name: text for name in android.QUESTIONS if name not in said})
    json.dumps(state, allow_nan=False)
    identity(state)


def _trtexec(path: Path) -> None:
    from edgeres.measurement import _trtexec as trtexec

    text = path.read_bytes().decode("utf-8", "replace")
    for parse in (trtexec.version, trtexec.outcome, trtexec.last_words, trtexec.warnings, trtexec.build_seconds,
                  trtexec.load_seconds, trtexec.gpu, trtexec.summary, trtexec.times, trtexec.convolutions):  # fmt: skip
        parse(text)
    with contextlib.suppress(ValueError):  # as it says
        trtexec.outputs(text, "logits")


def _bm(path: Path) -> None:
    from edgeres.measurement.runners import _benchmark_model_output as output

    data = path.read_bytes()
    text = data.decode("utf-8", "replace")
    output.kind(text)
    output.computed_by(text, "gpu")
    output.figures(text)
    output.figures("", data)


def _runner_said(path: Path) -> None:
    from edgeres.devices import Completed, _events

    text = path.read_bytes().decode("utf-8", "replace")

    class Board:
        name = "board"

        def push(self, local: Path) -> str:
            return "runner.py"

        def python(self) -> tuple[str, ...]:
            return ("python3",)

        def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
            return Completed(0, text, "")

    state = _events.probe(Board(), False)  # type: ignore[arg-type]
    _events.identity(state)


# Data sets.


def _pictures() -> list[Surface]:
    from edgeres.datasets import ReadOptions, _decoding, cifar10, fashion_mnist
    from edgeres.types import Resize

    def pictured(path: Path) -> object:
        return _decoding.decode(path, 16)

    def pieced(path: Path) -> object:
        content = path.read_bytes()
        one = _decoding.Wanted(
            str(path), len(content), hashlib.sha256(content).digest(), (0.2, 0.9, 0.1, 0.7)
        )
        return _decoding.decode_listed(one, Resize.of(16), 0.5)

    def clothes(path: Path) -> object:
        return fashion_mnist._idx(path, 3)

    def packed(path: Path) -> object:
        return cifar10.read(path, ReadOptions(Resize.of(32)))

    return [
        Surface("picture", _images, pictured, ".png"),
        Surface("piece of a picture", _images, pieced, ".jpg"),
        Surface("IDX file", _idx_files, clothes, ".gz", bombs=lambda: [_bomb()]),
        Surface("CIFAR archive", _cifar_archives, packed, ".tar.gz"),
    ]


@functools.cache
def _bomb() -> bytes:
    """256 MB of zeros."""
    return gzip.compress(bytes(1 << 28), mtime=0)


@functools.cache
def _images() -> list[bytes]:
    """Formats and modes that are met: 8 and 16 bits, grey, CMYK, palette, animated, rotated, huge."""
    from PIL import Image

    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (24, 20), np.uint8)
    rgb = rng.integers(0, 256, (24, 20, 3), np.uint8)
    frames = [Image.fromarray(np.roll(rgb, i, 0)) for i in range(3)]
    wide = Image.fromarray(grey.astype(np.uint16) << 8)
    found = []
    for image, options in (
        (Image.fromarray(rgb), {"format": "PNG"}), (wide, {"format": "PNG"}),
        (Image.fromarray(rgb).convert("CMYK"), {"format": "JPEG"}), (Image.fromarray(grey), {"format": "JPEG"}),
        (Image.fromarray(rgb).convert("P"), {"format": "GIF"}), (Image.fromarray(rgb), {"format": "WEBP"}),
        (frames[0], {"format": "GIF", "save_all": True, "append_images": frames[1:]}),
        (frames[0], {"format": "WEBP", "save_all": True, "append_images": frames[1:]}),
        (frames[0], {"format": "PNG", "save_all": True, "append_images": frames[1:]}),
        (Image.fromarray(rgb).convert("RGBA"), {"format": "PNG"}), (Image.fromarray(rgb), {"format": "BMP"}),
        (Image.fromarray(rgb).convert("RGBA"), {"format": "TIFF"}),
    ):  # fmt: skip
        out = io.BytesIO()
        image.save(out, **options)
        found.append(out.getvalue())
    huge = bytearray(found[0])  # a header that promises 65,536 x 65,536
    huge[16:24] = struct.pack(">II", 65536, 65536)
    return [*found, bytes(huge)]


@functools.cache
def _idx_files() -> list[bytes]:
    plain = bytes((0, 0, 8, 3)) + struct.pack(">III", 4, 28, 28) + bytes(4 * 28 * 28)
    return [plain, gzip.compress(plain)]


@functools.cache
def _cifar_archives() -> list[bytes]:
    import pickle

    batch = {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 3]}
    found = []
    for protocol in (2, 4):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
                data = pickle.dumps(batch, protocol)
                info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        found += [out.getvalue(), gzip.decompress(out.getvalue())]
    return found


# Weights.


def _weights(run: Path) -> list[Surface]:
    from edgeres.models import weights

    teacher = run / "artifacts" / "teacher"
    known = weights.load(teacher).spec

    def checkpoint(path: Path) -> object:
        return weights.from_checkpoint(path, known)

    def saved(path: Path) -> object:
        (path.parent / "weights.safetensors").write_bytes(
            (teacher / "weights.safetensors").read_bytes()
        )
        (path.parent / "spec.json").write_bytes(path.read_bytes())
        return weights.load(path.parent)

    def graph(path: Path) -> object:
        from safetensors.torch import save

        folder = path.parent / "graph"
        folder.mkdir(exist_ok=True)
        (folder / "weights.safetensors").write_bytes(save(_mobile().state_dict()))
        (folder / "spec.json").write_bytes(path.read_bytes())
        return weights.load(folder)

    def program(path: Path) -> object:
        from edgeres.network.from_torch import from_pt2

        return from_pt2(path, mean=(0.5,), std=(0.5,))

    def onnx_program(path: Path) -> object:
        import torch

        from edgeres.network.from_onnx import from_onnx

        model = from_onnx(path, 16).module  # whose shapes must fit
        return (
            model(torch.zeros(1, 3, 16, 16)) if model.spec.preprocess.size_px == 16 else model.spec
        )

    def integers(path: Path) -> object:
        """What is held of a file is the graph of integers."""
        import torch

        from edgeres.compression import given
        from edgeres.compression.integers import integer_graph
        from edgeres.network.from_onnx import from_onnx
        from edgeres.network.from_tflite import from_tflite

        read = (from_tflite if path.suffix == ".tflite" else from_onnx)(path, 16)
        if read.integers is None or read.module.spec.preprocess.size_px > 32:
            return read
        folded, scales, _ = given.held(read.module, read.integers)
        px = read.module.spec.preprocess.size_px
        return integer_graph(folded, scales)(torch.zeros(1, 3, px, px))

    def pickled() -> list[bytes]:
        import torch

        found = []
        for new in (True, False):
            out = io.BytesIO()
            torch.save(weights.load(teacher).state_dict(), out, _use_new_zipfile_serialization=new)
            found.append(out.getvalue())
        return found

    safe = (teacher / "weights.safetensors").read_bytes()
    return [
        Surface("checkpoint .pth", pickled, checkpoint, ".pth", _head_or_tail),
        Surface("checkpoint .safetensors", lambda: [safe], checkpoint, ".safetensors", _head_or_tail),
        Surface("spec.json", lambda: [(teacher / "spec.json").read_bytes()], saved, ".json", mutate.mutated_json),
        Surface("spec.json of a graph", lambda: [_graph()], graph, ".json", mutate.mutated_json),
        Surface("program .pt2", lambda: [_program()], program, ".pt2", _inside),
        Surface("network .onnx", lambda: [_onnx()], onnx_program, ".onnx", _rewired),
        Surface("integers .onnx", _integers, integers, ".onnx", _rewired),
        Surface("network .tflite", lambda: _tflite(run), integers, ".tflite", _relinked),
    ]  # fmt: skip


@functools.cache
def _program() -> bytes:
    """A file of `torch.export.save`."""
    import torch
    from network.nets import Mobile, of

    out = io.BytesIO()
    torch.export.save(torch.export.export(of(Mobile), (torch.zeros(1, 3, 16, 16),)), out)
    return out.getvalue()


@functools.cache
def _onnx() -> bytes:
    """A file of torch.onnx, with few numbers: changes are to meet its structure."""
    import tempfile

    from network.nets import Gated, of
    from network.onnx_files import exported

    with tempfile.TemporaryDirectory() as folder:
        return exported(of(Gated), Path(folder) / "net.onnx").read_bytes()


@functools.cache
def _integers() -> list[bytes]:
    """Files of onnxruntime's quantizer, in both forms."""
    import tempfile

    from network.integer_files import by_quantize_static
    from network.nets import Mobile, of
    from network.onnx_files import exported

    with tempfile.TemporaryDirectory() as folder:
        source = exported(of(Mobile), Path(folder) / "net.onnx")
        return [by_quantize_static(source, Path(folder) / "int8.onnx", form).read_bytes()
                for form in ("QDQ", "QOperator")]  # fmt: skip


def _tflite(run: Path) -> list[bytes]:
    """The int8 file of the stored run."""
    folder = run / "artifacts" / "export-tflite-int8"
    return [path.read_bytes() for path in sorted(folder.glob("*.tflite"))]


def _relinked(seed: bytes, rng: random.Random) -> bytes:
    """Operations, options, shapes and scales changed, still a flatbuffer; or bytes changed."""
    from edgeres.network import tflite_file as file

    if rng.random() < 0.3:
        return mutate.mutated(seed, rng)
    model = file.unpack(seed)
    (graph,) = model.subgraphs
    whole = [0, 1, -1, 2, 3, 7, 255, (1 << 31) - 1]
    for _ in range(rng.choice((1, 1, 2, 4))):
        op, tensor, what = rng.choice(graph.operators), rng.choice(graph.tensors), rng.randrange(7)
        if what == 0:
            op.opcodeIndex = rng.randrange(len(model.operatorCodes))
        elif what == 1:
            model.operatorCodes[op.opcodeIndex].builtinCode = rng.randrange(160)
        elif what == 2:
            indices = [*map(int, op.inputs)]
            indices[rng.randrange(len(indices))] = rng.choice(
                [*range(len(graph.tensors)), -1, 1 << 20]
            )
            op.inputs = np.asarray(indices, np.int32)
        elif what == 3 and op.builtinOptions is not None:
            numbers = [k for k, v in vars(op.builtinOptions).items() if isinstance(v, int | float)]
            for key in numbers[:1] and [rng.choice(numbers)]:
                setattr(op.builtinOptions, key, rng.choice(whole))
        elif what == 4 and tensor.shape is not None and len(tensor.shape):
            shape = [*map(int, tensor.shape)]
            shape[rng.randrange(len(shape))] = rng.choice(whole)
            tensor.shape = np.asarray(shape, np.int32)
        elif (
            what == 5 and tensor.quantization is not None and tensor.quantization.scale is not None
        ):
            scale = np.array(tensor.quantization.scale)
            scale[rng.randrange(len(scale))] = rng.choice(
                [0.0, -1.0, np.nan, np.inf, 1e30, 1e-38, 0.5]
            )
            tensor.quantization.scale = scale
        else:
            tensor.type = rng.randrange(20)
    try:
        return file.pack(model)
    except Exception:  # a number that its field can't hold
        return mutate.mutated(seed, rng)


def _rewired(seed: bytes, rng: random.Random) -> bytes:
    """Nodes, attributes, names and shapes changed, still protobuf; or bytes changed."""
    import onnx
    from onnx import helper

    if rng.random() < 0.3:
        return mutate.mutated(seed, rng)
    model = onnx.load_from_string(seed)
    graph = model.graph
    names = [n for node in graph.node for n in (*node.input, *node.output)] + [
        "",
        "x" * 300,
        "a/../b",
    ]
    kinds = [node.op_type for node in graph.node] + [
        "Add", "Sub", "Div", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Shape", "Gather", "Concat", "Slice",
        "Pad", "Cast", "MatMul", "ReduceMean", "Softmax", "Dropout", "Identity", "Constant", "Loop", "QLinearConv",
        "QuantizeLinear", "DequantizeLinear", "QLinearMatMul"]  # fmt: skip
    whole = [0, 1, -1, 2, 3, 7, 1 << 31, -(1 << 63), (1 << 63) - 1]
    for _ in range(rng.choice((1, 1, 2, 4))):
        node, what = rng.choice(graph.node), rng.randrange(8)
        if what == 0:
            node.op_type = rng.choice(kinds)
        elif what == 1 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        elif what == 2:
            node.name = rng.choice(names)
        elif what == 3:
            del node.input[rng.randrange(len(node.input) + 1) :]
        elif what == 4:
            key = rng.choice(["axes", "axis", "perm", "pads", "strides", "group", "kernel_shape", "to", "ceil_mode",
                              "auto_pad", "value", "dilations", "keepdims", "alpha", "epsilon"])  # fmt: skip
            value = rng.choice(
                [
                    rng.choice(whole),
                    [rng.choice(whole) for _ in range(rng.randrange(1, 6))],
                    0.5,
                    "SAME_UPPER",
                ]
            )
            node.attribute.append(helper.make_attribute(key, value))
        elif what == 5 and node.attribute:
            chosen = rng.choice(node.attribute)
            chosen.i = rng.choice(whole)
            chosen.ints[:] = [rng.choice([n, *whole]) for n in chosen.ints]
        elif what == 6 and graph.initializer:
            tensor = rng.choice(graph.initializer)
            tensor.dims[:] = rng.sample(list(tensor.dims), len(tensor.dims)) + rng.choice(
                [[], [1], [0]]
            )
            tensor.data_type = rng.choice([tensor.data_type, 1, 7, 10, 11, 16, 8])
        else:
            graph.node.insert(
                rng.randrange(len(graph.node)), graph.node.pop(rng.randrange(len(graph.node)))
            )
    return bytes(model.SerializeToString())


@functools.cache
def _mobile() -> Any:
    from network.nets import Mobile, of

    from edgeres.network.from_torch import from_module

    return from_module(of(Mobile), 16).module


def _graph() -> bytes:
    from edgeres.models import spec

    return json.dumps(spec.to_json(_mobile().spec)).encode()


def _inside(seed: bytes, rng: random.Random) -> bytes:
    """One of the documents in an archive changed; now and then the archive itself."""
    if rng.random() < 0.2:
        return _head_or_tail(seed, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = rng.choice([n for n in names if n.endswith(".json")])
        for name in names:
            data = old.read(name)
            new.writestr(name, mutate.mutated_json(data, rng) if name == chosen else data)
    return out.getvalue()


def _head_or_tail(seed: bytes, rng: random.Random) -> bytes:
    """Most of a weights file is numbers: change where the structure is."""
    cut = min(len(seed), 6000)
    if rng.random() < 0.5:
        return mutate.mutated(seed[:cut], rng) + seed[cut:]
    return seed[:-cut] + mutate.mutated(seed[-cut:], rng)


# Bundles.


def _bundles(scratch: Path, run: Path) -> list[Surface]:
    from edgeres.bundle import checking
    from edgeres.commands import bundle

    verify_anew(run)
    made = scratch / "good.zip"
    bundle.bundled(str(run), "web-service", made, None, run.parent)
    with zipfile.ZipFile(made) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}

    def rewritten(seed: bytes, rng: random.Random) -> bytes:
        """Some entry changed, and the manifest mended: what a forger would send."""
        import hashlib

        if rng.random() < 0.5:
            return mutate.mutated(seed, rng)
        name = rng.choice(
            ["golden/golden.json", "golden/inputs.npy", "golden/outputs.npy", "drift.json",
             "certificate.json", "sbom.json", "preprocess.json"]
        )  # fmt: skip
        change = mutate.mutated_json if name.endswith(".json") else _npy
        forged = {**files, name: change(files[name], rng)}
        manifest = json.loads(files["manifest.json"])
        manifest["sha256"][name] = hashlib.sha256(forged[name]).hexdigest()
        forged["manifest.json"] = mutate.mutated_json(json.dumps(manifest).encode(), rng) if (
            rng.random() < 0.3) else json.dumps(manifest).encode()  # fmt: skip
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for entry, data in forged.items():
                archive.writestr(entry, data)
        return out.getvalue()

    log = scratch / "device.jsonl"
    baseline = json.loads(files["drift.json"])
    log.write_text("".join(
        json.dumps({name: values[i] for name, values in baseline.items()}
                   | {"top1": int(baseline["top1"][i])}) + "\n" for i in range(100)
    ))  # fmt: skip

    return [
        Surface("bundle", lambda: [made.read_bytes()], checking.check, ".zip", rewritten),
        Surface(
            "bundle: drift",
            lambda: [made.read_bytes()],
            lambda p: bundle.drifted(p, log),
            ".zip",
            rewritten,
        ),
    ]


def _npy(seed: bytes, rng: random.Random) -> bytes:
    """An array whose header says something else."""
    if rng.random() < 0.5:
        return mutate.mutated(seed[:128], rng) + seed[128:]
    shape = rng.choice(["(99999999999, 8)", "(0,)", "(1,)", "()", "(-1, 8)", "(8, 8)", "('x',)"])
    kind = rng.choice(["|O", "|u1", "<f8", "<c16", "|V9", "<U9", "<M8[s]"])
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + seed[128:]


# Model files.


def _models(run: Path) -> list[Surface]:
    found = []
    for target, pattern in _NATIVE.items():
        folder = run / "artifacts" / f"export-{target}"
        files = sorted(folder.glob(pattern))
        seeds = [p.read_bytes() for p in files]
        seeds += [_in_4_bits(p) for p in files if p.suffix in (".onnx", ".tflite")]
        if seeds:
            suffix = pattern.removeprefix("*")
            found.append(Surface(f"model {suffix}", functools.partial(list, seeds), read_model, suffix,
                                 native=True))  # fmt: skip
    packages = sorted((run / "artifacts" / "export-coreml-int8").glob("*.mlpackage"))
    for package in packages:
        parts = [p for p in package.rglob("*") if p.is_file()]
        for part in parts:
            found.append(Surface(
                f"model .mlpackage: {part.name}", functools.partial(list, [part.read_bytes()]),
                functools.partial(_read_package, package, part.relative_to(package)), native=True,
            ))  # fmt: skip
    return found


def _in_4_bits(path: Path) -> bytes:
    """The same file, its weights' codes cut to 4 bits."""
    import onnx

    from edgeres import targets
    from edgeres.network import tflite_file
    from edgeres.targets import _onnx_rewrites, _tflite_precisions

    ops = targets.of_file(path)[1].read(path).ops
    table = {op.output: dataclasses.replace(op.weight_quantization, dtype="int4")
             for op in ops if op.weight_quantization}  # fmt: skip
    if path.suffix == ".onnx":
        model = onnx.load(path)
        _onnx_rewrites.four_bit_weights(model, table)
        model.ir_version = 10
        return bytes(model.SerializeToString())
    flat = tflite_file.unpack(path.read_bytes())
    _tflite_precisions.four_bit_weights(flat, table)
    return tflite_file.pack(flat)


def read_model(path: Path) -> None:
    """Read and run it, as the child of `examine` does."""
    from edgeres import targets

    _, target = targets.of_file(path)
    graph = target.read(path)
    session = target.session(path)
    if session is not None:
        session.run(np.zeros((1, *graph.input.shape[1:]), graph.input.dtype))


def _read_package(package: Path, part: Path, path: Path) -> None:
    import shutil

    copy = path.parent / "model.mlpackage"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(package, copy)
    (copy / part).write_bytes(path.read_bytes())
    from edgeres import targets

    targets.of_file(copy)[1].read(copy)  # interpreting it takes seconds a case


def dumped(value: Any) -> bytes:
    """A value as YAML."""
    text: str = yaml.safe_dump(value, allow_unicode=True)
    return text.encode("utf-8", "replace")
