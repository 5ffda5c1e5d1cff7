"""TensorRT engines on a device. In: an ONNX file. Out: its engine there, built once and kept.

An engine belongs to one GPU and one TensorRT, so it is built where it runs, and kept in the user's
cache folder on the device under a name made of the file, the version and the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeres.devices import Completed, Device
from edgeres.errors import DeviceError
from edgeres.measurement import _trtexec
from edgeres.measurement.runners import Work

LARGEST_JSON = 64 << 20
SHORT_S = 60.0

_TOOL = "/usr/src/tensorrt/bin/trtexec"  # where JetPack puts it
_BUILD_S = 1800.0
_KEPT = 32  # engines on a device
_UNKNOWN = "?"
_MEND = ("JetPack puts it in /usr/src/tensorrt/bin (apt install tensorrt); the profile names "
         "another place as 'tools: {trtexec: PATH}'")  # fmt: skip

_FOLDER = """
folder="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/edgeres/engines"
mkdir -p "$folder" && cd "$folder" && pwd
"""
_FIND = 'touch -c "$1.engine" && [ -s "$1.engine" ] && cat "$1.seconds"'
_KEEP = f"""
echo "$2" >"$1.seconds" && mv "$1.partial" "$1.engine" && cd "$(dirname "$1")" || exit 1
ls -t *.engine | tail -n +{_KEPT + 1} | while read -r old; do rm -f "${{old%.engine}}".*; done
"""
_DROP = 'rm -f "$1".*'
_GPU = "nvidia-smi --query-gpu=name --format=csv,noheader"  # a Jetson may not have it


@dataclass(frozen=True)
class Engine:
    """A file's engine on a device.

    Attributes:
        base: its path there without the suffix.
        shapes: the flags that a file for any batch needs, also to run.
        build: the seconds it took, and whether that was at another time.
        convolutions: the type they compute in -> how many; "" for a type that it doesn't tell.
    """

    device: Device
    work: Work
    tool: str
    version: str
    base: str
    shapes: Sequence[str]
    quantized: bool
    build: Mapping[str, object]
    convolutions: Mapping[str, int]

    @property
    def path(self) -> str:
        return f"{self.base}.engine"

    def notes(self) -> list[str]:
        """The precision that its convolutions really have."""
        count = sum(self.convolutions.values())
        return [f"{n} of {count} convolutions in {kind or 'a type that the engine does not tell'}"
                for kind, n in sorted(self.convolutions.items())]  # fmt: skip

    def doubts(self) -> list[str]:
        """An int8 file whose convolutions TensorRT left in floating point isn't what was meant."""
        floats = sum(n for kind, n in self.convolutions.items() if kind and "int" not in kind)
        if not (self.quantized and floats):
            return []
        count = sum(self.convolutions.values())
        return [f"{floats} of {count} convolutions of an int8 file run in floating point"]

    def run(self, timeout_s: float, *flags: str) -> str:
        """Run trtexec with the engine; its log, once it has passed."""
        argv = [self.tool, f"--loadEngine={self.path}", *self.shapes, *flags]
        done = self.device.run(argv, patience(self.device, timeout_s))
        if not _passed(done):
            raise self.failed(done)
        return _log(done)

    def failed(self, done: Completed) -> DeviceError:
        """The error; the engine goes too: a damaged one would fail for ever."""
        return _failed(self.device, self.work, self.base, done)


def prepare(device: Device, work: Work) -> Engine:
    """Find a file's engine on the device, or build it there.

    Raises:
        DeviceError: trtexec isn't there, or TensorRT builds no engine of the file.
    """
    tool, found = _tool(device), version(device)
    any_batch, quantized, half = _facts(device, work)
    # One sample, for a file that takes any batch; others refuse to be told.
    shape = "x".join(map(str, (1, *work.inputs.shape[1:])))
    shapes = (f"--shapes='{work.input.name}':{shape}",) if any_batch else ()
    base = f"{_sh(device, _FOLDER).strip()}/{_key(device, work, found)}"
    seconds = _sh(device, _FIND, base).strip()
    cached = bool(seconds)
    if not cached:
        precision = _precision(found, quantized, half)
        seconds = _build(device, work, base, [tool, *precision, *shapes])
    layers = _sh(device, f'head -c {LARGEST_JSON} "$1.layers.json"', base)
    return Engine(
        device, work, tool, found, base, shapes, quantized,
        build={"seconds": None if seconds == _UNKNOWN else float(seconds), "cached": cached},
        convolutions=_trtexec.convolutions(layers),
    )  # fmt: skip


def major(version: str) -> int:
    """The first number of a version."""
    return int(version.split(".")[0])


def patience(device: Device, seconds: float) -> float:
    """A timeout that an emulated device can meet too."""
    return seconds * (20 if device.profile.emulated else 1)


def _build(device: Device, work: Work, base: str, command: Sequence[str]) -> str:
    """Build and keep an engine; returns the seconds it took, as text."""
    argv = [
        *command, f"--onnx={device.push(work.path)}", f"--saveEngine={base}.partial",
        "--skipInference", f"--exportLayerInfo={base}.layers.json", "--profilingVerbosity=detailed",
    ]  # fmt: skip
    done = device.run(argv, patience(device, _BUILD_S))
    if not _passed(done):
        raise _failed(device, work, base, done)
    seconds = _trtexec.build_seconds(_log(done))
    text = _UNKNOWN if seconds is None else f"{seconds:g}"
    kept = device.run(["sh", "-c", _KEEP, "sh", base, text], SHORT_S)
    if kept.returncode != 0:
        raise DeviceError(f"device '{device.name}': can't keep the engine of {work.path.name}: "
                          f"{_trtexec.last_words(kept.stderr)}")  # fmt: skip
    return text


def version(device: Device) -> str:
    """Of the TensorRT that the device's trtexec belongs to, as in its log.

    Raises:
        DeviceError: there is no trtexec, or it is something else.
    """
    tool = _tool(device)
    done = device.run(["sh", "-c", '"$@" 2>&1 || exit 1', "sh", tool, "--help"], SHORT_S)
    found = _trtexec.version(done.stdout)
    if found is None:
        said = _trtexec.last_words(done.stdout) or "nothing"
        raise DeviceError(
            f"device '{device.name}': {tool} is no trtexec (it said: {said}); {_MEND}"
        )
    return found


def _tool(device: Device) -> str:
    return device.profile.tools.get("trtexec", _TOOL)


def _facts(device: Device, work: Work) -> tuple[bool, bool, bool]:
    """Whether a file takes any batch, has int8 codes, has float16 weights."""
    import onnx

    if "'" in work.input.name or "," in work.input.name:
        raise DeviceError(f"device '{device.name}': trtexec can't be told an input named "
                          f'"{work.input.name}"; export the file with another name')  # fmt: skip
    try:
        graph = onnx.load(work.path, load_external_data=False).graph
    except Exception as error:  # protobuf's own classes
        raise DeviceError(f"device '{device.name}': {work.path} is no ONNX file") from error
    first = next((i for i in graph.input if i.name == work.input.name), None)
    dims = first.type.tensor_type.shape.dim if first is not None else ()
    return (
        any(not d.HasField("dim_value") for d in dims),
        any(node.op_type == "QuantizeLinear" for node in graph.node),
        any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer),
    )


def _precision(version: str, quantized: bool, half: bool) -> Sequence[str]:
    """The file's own types: TensorRT 11 knows nothing else, TensorRT 8 can only be allowed them."""
    if major(version) >= 10:
        return ("--stronglyTyped",)
    return [flag for flag, used in (("--int8", quantized), ("--fp16", half)) if used]


def _key(device: Device, work: Work, version: str) -> str:
    """A file name for what an engine depends on."""
    digest = hashlib.sha256(work.path.read_bytes()).hexdigest()
    where = hashlib.sha256(f"{device.identity()} {_sh(device, _GPU)}".encode()).hexdigest()
    return f"{digest[:32]}-{version}-{where[:16]}"


def _passed(done: Completed) -> bool:
    return done.returncode == 0 and _trtexec.outcome(_log(done)) == "PASSED"


def _failed(device: Device, work: Work, base: str, done: Completed) -> DeviceError:
    _sh(device, _DROP, base)
    how = _trtexec.outcome(_log(done)) or f"ended with exit status {done.returncode}"
    said = _trtexec.last_words(_log(done)) or "nothing"
    return DeviceError(f"device '{device.name}': {work.path.name}: trtexec {how}; "
                       f"it last said: {said}")  # fmt: skip


def _log(done: Completed) -> str:
    return f"{done.stdout}\n{done.stderr}"


def _sh(device: Device, script: str, *arguments: str) -> str:
    """What a shell's script printed; "" if it failed.

    One status for all failures: of 127, a device says that `sh` isn't there.
    """
    done = device.run(["sh", "-c", f"{{ {script}\n}} || exit 1", "sh", *arguments], SHORT_S)
    return done.stdout if done.returncode == 0 else ""
