"""From PyTorch: an `nn.Module` or a .pt2 file of `torch.export` in, a network and its tensors out.

A module is exported, saved and read back like a file, so that there is one way in. What isn't in
the table below is refused by name, with the module it stands in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeres.disk import read_bounded, require_stored
from edgeres.errors import BadInput
from edgeres.network import _pt2
from edgeres.network._pt2 import Call, Program, Ref
from edgeres.network.graph import INPUT, Network, Node, Value
from edgeres.network.module import NetworkModule
from edgeres.types import Preprocess

_MOST = 8 << 30


@dataclass(frozen=True)
class Imported:
    """What was read.

    Attributes:
        module: the network with its weights, in evaluation mode.
        notes: what was left out or changed, a sentence each.
        fixed_size: it is right for images of the size it was exported with only.
    """

    module: NetworkModule
    notes: tuple[str, ...]
    fixed_size: bool


def from_module(
    model: nn.Module, size_px: int, *, name: str = "", mean: tuple[float, ...] = (0.5,),
    std: tuple[float, ...] = (0.5,),
) -> Imported:  # fmt: skip
    """Read a module, which is left as it was.

    Args:
        model: takes (N, 3, size_px, size_px) float32, gives (N, classes).
        mean, std: what its images are normalized with, in units of pixel / 255.

    Raises:
        BadInput: `torch.export` can't trace it, or an operation isn't known; it is named.
    """
    modes = {module: module.training for module in model.modules()}
    image = torch.zeros(2, 3, size_px, size_px)
    shapes = ({0: torch.export.Dim("batch", min=1, max=65536)},)
    name = name or type(model).__name__.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model.eval(), (image,), dynamic_shapes=shapes)
            saved = BytesIO()
            torch.export.save(_contiguous(program), saved)
    except Exception as error:  # whatever its own code raises
        said = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise BadInput(f"{name}: torch.export can't read this module: {said}") from error
    finally:
        for module, training in modes.items():
            module.training = training
    return _imported(_pt2.read(saved.getvalue(), name), name, name, mean, std)


def from_pt2(path: Path, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Imported:
    """Read a .pt2 file; nothing in it runs.

    Args:
        mean, std: what its images are normalized with, in units of pixel / 255.

    Raises:
        BadInput: it isn't a program of one image and one vector of logits, or an operation isn't
            known; it is named, with the module it stands in.
        StorageError: it can't be read.
    """
    require_stored(path, "torch.export.save")
    data = read_bounded(path, _MOST, "program")
    return _imported(_pt2.read(data, str(path)), str(path), path.stem, mean, std)


def _contiguous(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    for key, value in program.state_dict.items():
        if not value.is_contiguous():
            program.state_dict[key] = value.contiguous()
    return program


def _imported(
    program: Program, where: str, name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> Imported:
    try:
        image, answer = program.shapes[program.image], program.shapes[program.answer]
    except KeyError as error:
        raise BadInput(f"{where}: doesn't say what it takes and gives") from error
    if len(image) != 4 or image[1] != 3 or image[2] != image[3] or not image[2]:
        raise BadInput(f"{where}: takes {_shape(image)}; a network here takes square images of 3 "
                       "channels, (N, 3, H, H)")  # fmt: skip
    if len(answer) != 2 or not answer[1]:
        raise BadInput(f"{where}: gives {_shape(answer)}; a classifier gives (N, classes)")
    walk = _Import(program, where)
    network = Network(_plain(name), *walk.run(), answer[1], Preprocess(image[2], mean, std))
    module = NetworkModule(network).eval()
    module.load_state_dict(walk.tensors)
    return Imported(module, tuple(dict.fromkeys(walk.notes)), walk.fixed_size)


def _plain(name: str) -> str:
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".-")
    return kept[:100] or "network"


def _shape(sizes: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(n) if n else "N" for n in sizes) + ")"


@dataclass(frozen=True)
class _Pads:
    """A map with zeros around it: left, right, top, bottom."""

    source: str
    sizes: tuple[int, ...]

    @property
    def uneven(self) -> bool:
        """Whether a side has more than the other."""
        return self.sizes[0] != self.sizes[1] or self.sizes[2] != self.sizes[3]


@dataclass
class _Import:
    """One walk over a program's calls."""

    program: Program
    where: str
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)  # of the program -> of the network
    notes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    owners: set[str] = field(default_factory=set)
    fixed_size: bool = False
    storage: dict[str, str] = field(default_factory=dict)  # a view -> what it is a view of
    padded: dict[str, _Pads] = field(default_factory=dict)  # what only a convolution may read
    _layers: set[str] = field(default_factory=set)  # modules with a weight, operations to be

    def run(self) -> tuple[tuple[Node, ...], str]:
        self.values[self.program.image] = INPUT
        owners = [own.rpartition(".") for own in self.program.known.values()]
        self.owners = {owner for owner, *_ in owners}
        self._layers = {owner for owner, _, leaf in owners if leaf == "weight" and owner}
        for call in self.program.calls:
            handler = _CALLS.get(call.target)
            if handler is None:
                raise self.refused(call, f"{call.target} isn't known")
            before = self._read(call)
            try:
                handler(self, call)
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                raise self.refused(
                    call, f"{call.target} with these arguments isn't known"
                ) from error
            self._follow(call, before)
        output = self.values.get(self.program.answer)
        if output is None or output == INPUT:
            raise BadInput(f"{self.where}: its output isn't made of its image")
        return _reaching(self.nodes, output), output

    def _read(self, call: Call) -> str | None:
        """The network's name of the first tensor that a call reads."""
        ref = call.arguments.get("self", call.arguments.get("input"))
        return self.values.get(ref.name) if isinstance(ref, Ref) else None

    def _follow(self, call: Call, before: str | None) -> None:
        """An operation in place changes its input, too, under each of its names.

        Args:
            before: what that was.
        """
        ref = call.arguments.get("self", call.arguments.get("input"))
        kind = call.target.partition(".")[0]
        if not isinstance(ref, Ref) or before is None or not call.results:
            return
        (result, *_), root = call.results, self.storage.get(ref.name, ref.name)
        if kind in _VIEWS or kind.endswith("_"):
            self.storage[result] = root
        if kind.endswith("_"):
            for name in [n for n in self.values if self.storage.get(n, n) == root]:
                if self.values[name] == before:
                    self.values[name] = self.values[result]
                elif name != result:
                    del self.values[name]  # of another shape: whoever reads it is refused

    def refused(self, call: Call, why: str) -> BadInput:
        place = f" in '{call.scope}'" if call.scope else ""
        return BadInput(f"{self.where}: the operation {why}{place}; docs/models.md lists those "
                        "that are")  # fmt: skip

    def value(self, call: Call, key: str, *, pads: bool = False) -> str:
        """The network's name of a tensor that a call reads.

        Args:
            pads: of a padded map, the one without its padding, which the call takes over.
        """
        ref = call.arguments.get(key)
        if isinstance(ref, Ref) and ref.name in self.padded:
            if not pads:
                raise self.refused(call, f"{call.target} of a padded map isn't known")
            return self.padded[ref.name].source
        if not isinstance(ref, Ref) or ref.name not in self.values:
            raise self.refused(call, f"{call.target} reads what isn't made of the image, which is "
                                     "not known")  # fmt: skip
        return self.values[ref.name]

    def tensor(self, call: Call, key: str) -> tuple[str, Tensor] | None:
        """A tensor of the file that a call reads, with its own name."""
        ref = call.arguments.get(key)
        if ref is None:
            return None
        own = self.program.known.get(ref.name) if isinstance(ref, Ref) else None
        if own is None or own not in self.program.tensors:
            raise self.refused(call, f"{call.target} with a {key} that isn't a plain tensor is not "
                                     "known")  # fmt: skip
        found = self.program.tensors[own]
        return own, found.float() if found.is_floating_point() else found

    def put(self, call: Call, op: str, inputs: list[str], name: str, **attributes: Value) -> None:
        self.used.add(name)
        self.nodes.append(Node.of(name, op, tuple(inputs), **attributes))
        self.values[call.results[0]] = name

    def layer(self, call: Call, op: str, keys: dict[str, str], **attributes: Value) -> None:
        """An operation with tensors, named as the module that has them.

        Args:
            keys: of the call -> of the module.
        """
        found = {own: pair for key, own in keys.items()
                 if (pair := self.tensor(call, key)) is not None}  # fmt: skip
        owner, _, leaf = found["weight"][0].rpartition(".")
        name = owner
        if not owner or leaf != "weight" or owner in self.used:
            name = self.free(f"{owner}.{op}" if owner else op)
        if owner in self.used:
            self.notes.append(f"'{owner}' is used more than once: each use has the same weights, "
                              "and is trained for itself")  # fmt: skip
        self.tensors |= {f"{name}.{own}": value for own, (_, value) in found.items()}
        self.put(call, op, [self.value(call, "input", pads=op == "conv2d")], name, **attributes)

    def plain(
        self, call: Call, op: str, inputs: list[str] | None = None, **attributes: Value
    ) -> None:
        """An operation without tensors, named as the module it stands in."""
        inputs = inputs or [self.value(call, "self")]
        self.put(call, op, inputs, self.base(call, op), **attributes)

    def base(self, call: Call, op: str) -> str:
        """The name of the module that a call stands in; of a call among others, one below it."""
        whole = any(o == call.scope or o.startswith(call.scope + ".") for o in self.owners)
        return self.free(f"{call.scope}.{op}" if call.scope and whole else call.scope or op)

    def hard_gate(self, call: Call, base: str) -> None:
        """clamp(x / 6 + 1 / 2, 0, 1)."""
        x = self.value(call, "self")
        shape = self.program.shapes[call.results[0]]
        self.notes.append("hard-sigmoid and hard-swish are computed by a depthwise convolution, to "
                          "the same numbers, so that they run in integers")  # fmt: skip
        channels, name = shape[1], f"{base}.shift"
        if len(shape) == 2:  # a convolution reads a map
            self.put(call, "unflatten", [x], f"{base}.unflatten")
            x = f"{base}.unflatten"
        values: dict[str, Value] = {
            "in": channels, "out": channels, "kernel": (1, 1), "stride": (1, 1), "padding": (0, 0),
            "dilation": (1, 1), "groups": channels, "bias": True, "trained": False,
        }  # fmt: skip
        self.put(call, "conv2d", [x], name, **values)
        self.tensors[f"{name}.weight"] = torch.full((channels, 1, 1, 1), 1 / 6)
        self.tensors[f"{name}.bias"] = torch.full((channels,), 0.5)
        self.put(call, "clamp", [name], f"{base}.clamp", most=1.0)
        if len(shape) == 2:
            self.put(call, "flatten", [f"{base}.clamp"], f"{base}.flatten")

    def pooled(self, name: str) -> bool:
        """Whether a map has one pixel whatever the image's size: a global pool is before it."""
        nodes = {node.name: node for node in self.nodes}
        while name in nodes and nodes[name].op not in ("global_avg_pool", "unflatten"):
            name = nodes[name].inputs[0]
        return name in nodes

    def free(self, base: str) -> str:
        """A name that no other operation has, nor is inside of: `bn1.act` behind an operation
        `bn1` is `bn1_act`."""
        for used in sorted(self.used | self._layers):
            if base.startswith(used + "."):
                base = f"{used}_{base[len(used) + 1 :].replace('.', '_')}"
        name, number = base, 1
        while self._taken(name):
            number += 1
            name = f"{base}_{number}"
        return name

    def _taken(self, name: str) -> bool:
        return name in self.owners or any(
            name == u or u.startswith(name + ".") or name.startswith(u + ".") for u in self.used
        )


def _reaching(nodes: list[Node], output: str) -> tuple[Node, ...]:
    """Those that the output is made of."""
    wanted = {output}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return tuple(node for node in nodes if node.name in wanted)


def _pair(value: Any, otherwise: Any) -> tuple[int, int]:
    value = otherwise if value is None or value == [] else value
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(listed) not in (1, 2) or any(type(v) is not int for v in listed):
        raise ValueError(f"{value!r:.80} isn't two whole numbers")
    return listed[0], listed[-1]


def _conv(walk: _Import, call: Call) -> None:
    given = call.arguments
    (_, weight) = walk.tensor(call, "weight") or ("", torch.empty(0))
    kernel, dilation = _pair(list(weight.shape[2:]), 1), _pair(given.get("dilation"), 1)
    pads = walk.padded.get(getattr(given["input"], "name", ""))
    walk.fixed_size |= pads is not None and pads.uneven  # as its images' size asked for
    around = [own + more for own, more in zip(
        _around(given.get("padding"), kernel, dilation), pads.sizes if pads else (0, 0, 0, 0),
        strict=True)]  # fmt: skip
    (left, right, top, bottom), wide, tall = around, max(around[:2]), max(around[2:])
    # A kernel that has a column of zeros in front sees one column of padding less there.
    grown = (wide - left, wide - right, tall - top, tall - bottom)
    if any(grown):
        if dilation != (1, 1):
            raise walk.refused(call, f"{call.target} with dilation and uneven padding isn't known")
        walk.notes.append("a convolution that pads more on one side than on the other has a larger "
                          "kernel, with zeros on that side: the same numbers")  # fmt: skip
    groups = int(given.get("groups") or 1)
    values: dict[str, Value] = {
        "in": weight.shape[1] * groups, "out": weight.shape[0],
        "kernel": (kernel[0] + sum(grown[2:]), kernel[1] + sum(grown[:2])),
        "stride": _pair(given.get("stride"), 1), "padding": (tall, wide), "dilation": dilation,
        "groups": groups, "bias": given.get("bias") is not None, "trained": True,
    }  # fmt: skip
    walk.layer(call, "conv2d", {"weight": "weight", "bias": "bias"}, **values)
    name = f"{walk.nodes[-1].name}.weight"
    walk.tensors[name] = nn.functional.pad(walk.tensors[name], grown)


def _around(
    padding: Any, kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Left, right, top, bottom."""
    if padding == "same":  # PyTorch has it at stride 1 only
        tall, wide = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        return wide // 2, wide - wide // 2, tall // 2, tall - tall // 2
    tall, wide = (0, 0) if padding == "valid" else _pair(padding, 0)
    return wide, wide, tall, tall


def _linear(walk: _Import, call: Call) -> None:
    (_, weight) = walk.tensor(call, "weight") or ("", torch.empty(0, 0))
    walk.layer(call, "linear", {"weight": "weight", "bias": "bias"},
               **{"in": weight.shape[1], "out": weight.shape[0],
                  "bias": call.arguments.get("bias") is not None})  # fmt: skip


def _norm(walk: _Import, call: Call) -> None:
    given = call.arguments
    statistics = walk.tensor(call, "running_var")
    if statistics is None or given.get("training"):
        raise walk.refused(call, "batch_norm without running statistics isn't known")
    if len(walk.program.shapes[call.results[0]]) != 4:
        raise walk.refused(call, "batch_norm of vectors isn't known")
    features = len(statistics[1])
    keys = {key: key for key in ("weight", "bias", "running_mean", "running_var")}
    if given.get("weight") is None:
        raise walk.refused(call, "batch_norm without a scale isn't known")
    momentum = given.get("momentum")
    walk.layer(call, "batch_norm", keys, features=features, eps=float(given.get("eps", 1e-5)),
               momentum=0.1 if momentum is None else float(momentum))  # fmt: skip
    name = walk.nodes[-1].name
    walk.tensors[f"{name}.num_batches_tracked"] = torch.tensor(0)


def _joined(op: str) -> Callable[[_Import, Call], None]:
    def handler(walk: _Import, call: Call) -> None:
        if call.arguments.get("alpha", 1) != 1:
            raise walk.refused(call, f"{call.target} with a factor isn't known")
        walk.plain(call, op, [walk.value(call, "self"), walk.value(call, "other")])

    return handler


def _simple(op: str) -> Callable[[_Import, Call], None]:
    return lambda walk, call: walk.plain(call, op)


def _hardtanh(walk: _Import, call: Call) -> None:
    low, high = call.arguments.get("min_val", -1), call.arguments.get("max_val", 1)
    if low != 0 or high <= 0:
        raise walk.refused(call, f"hardtanh from {low} to {high} isn't known")
    walk.plain(call, "clamp", most=float(high))


def _clamp(walk: _Import, call: Call) -> None:
    low, high = call.arguments.get("min"), call.arguments.get("max")
    if low != 0 or (high is not None and high <= 0):
        raise walk.refused(call, f"{call.target} from {low} to {high} isn't known")
    if high is None:
        walk.plain(call, "relu")
    else:
        walk.plain(call, "clamp", most=float(high))


def _relu6(walk: _Import, call: Call) -> None:
    walk.plain(call, "clamp", most=6.0)


def _hardsigmoid(walk: _Import, call: Call) -> None:
    """clamp(x / 6 + 1 / 2, 0, 1): the sum as a depthwise convolution, which every runtime has in
    integers; hard-sigmoid has no integer kernel in some, and is float there."""
    walk.hard_gate(call, walk.base(call, "hardsigmoid"))


def _hardswish(walk: _Import, call: Call) -> None:
    """x hardsigmoid(x)."""
    base, x = walk.base(call, "hardswish"), walk.value(call, "self")
    walk.hard_gate(call, base)
    walk.put(call, "mul", [x, walk.values[call.results[0]]], f"{base}.mul")


def _silu(walk: _Import, call: Call) -> None:
    """x sigmoid(x)."""
    base, x = walk.base(call, "silu"), walk.value(call, "self")
    walk.put(call, "sigmoid", [x], f"{base}.sigmoid")
    walk.put(call, "mul", [x, f"{base}.sigmoid"], f"{base}.mul")


def _max_pool(walk: _Import, call: Call) -> None:
    given = call.arguments
    if given.get("ceil_mode"):
        _require_exact(walk, call)
    kernel = _pair(given["kernel_size"], 1)
    stride, padding = _pair(given.get("stride"), kernel), _pair(given.get("padding"), 0)
    walk.plain(call, "max_pool", kernel_size=kernel, stride=stride, padding=padding,
               dilation=_pair(given.get("dilation"), 1))  # fmt: skip


def _require_exact(walk: _Import, call: Call) -> None:
    """Rounding the size up is the same as down where nothing is left over."""
    given = call.arguments
    before, after = (walk.program.shapes[n] for n in (given["self"].name, call.results[0]))
    kernel = _pair(given["kernel_size"], 1)
    stride, padding = _pair(given.get("stride"), kernel), _pair(given.get("padding"), 0)
    for side, made, k, s, p in zip(before[2:], after[2:], kernel, stride, padding, strict=True):
        if (side + 2 * p - k) // s + 1 != made:
            raise walk.refused(call, f"{call.target} with ceil_mode isn't known at this image size")
    walk.fixed_size = True


def _avg_pool(walk: _Import, call: Call) -> None:
    given = call.arguments
    kernel = _pair(given["kernel_size"], 1)
    if given.get("ceil_mode"):
        _require_exact(walk, call)
    if _pair(given.get("padding"), 0) != (0, 0) or given.get("divisor_override") is not None:
        raise walk.refused(call, "avg_pool2d with padding or a divisor isn't known")
    side = walk.program.shapes[given["self"].name][2:]
    if tuple(side) == kernel:
        walk.fixed_size = True
        walk.plain(call, "global_avg_pool")
    else:
        stride = _pair(given.get("stride"), kernel)
        walk.plain(call, "avg_pool", kernel_size=kernel, stride=stride)


def _adaptive_pool(walk: _Import, call: Call) -> None:
    size = _pair(call.arguments["output_size"], 1)
    side = tuple(walk.program.shapes[call.arguments["self"].name][2:])
    if size == (1, 1):
        walk.plain(call, "global_avg_pool")
    elif size == side:
        walk.fixed_size = True
        walk.values[call.results[0]] = walk.value(call, "self")
    elif all(n % m == 0 for n, m in zip(side, size, strict=True)):
        step = (side[0] // size[0], side[1] // size[1])
        walk.fixed_size = True
        walk.plain(call, "avg_pool", kernel_size=step, stride=step)
    else:
        raise walk.refused(call, f"adaptive_avg_pool2d of {side} to {size} isn't known")


def _mean(walk: _Import, call: Call) -> None:
    rank = len(walk.program.shapes[call.arguments["self"].name])
    if rank != 4 or sorted(d % 4 for d in call.arguments.get("dim") or []) != [2, 3]:
        raise walk.refused(call, "mean over other axes than height and width isn't known")
    walk.plain(call, "global_avg_pool")
    if not call.arguments.get("keepdim"):
        pooled = walk.values[call.results[0]]
        walk.plain(call, "flatten", [pooled])


def _flatten(walk: _Import, call: Call) -> None:
    shape = walk.program.shapes[call.results[0]]
    before = walk.program.shapes[call.arguments["self"].name]
    if len(before) == 4 and shape == before[:2] and before[2:] == (1, 1):
        walk.fixed_size |= not walk.pooled(walk.value(call, "self"))
        walk.plain(call, "flatten")
    elif shape == before:
        walk.values[call.results[0]] = walk.value(call, "self")
    else:
        raise walk.refused(
            call, f"{call.target} of {_shape(before)} to {_shape(shape)} isn't known"
        )


def _pad(walk: _Import, call: Call) -> None:
    """Zeros around a map; they become the padding of the convolution behind."""
    sizes = call.arguments["pad"]
    mode, value = call.arguments.get("mode", "constant"), call.arguments.get("value") or 0
    if not any(sizes):
        _same(walk, call)
    elif mode != "constant" or value != 0 or len(sizes) not in (2, 4) or min(sizes) < 0:
        raise walk.refused(call, f"{call.target} with other than zeros around a map isn't known")
    else:
        source = walk.value(call, "self")
        walk.padded[call.results[0]] = _Pads(source, tuple([*sizes, 0, 0][:4]))


def _same(walk: _Import, call: Call) -> None:
    key = next(k for k in ("input", "self") if k in call.arguments)
    walk.values[call.results[0]] = walk.value(call, key)


def _dropout(walk: _Import, call: Call) -> None:
    share = call.arguments.get("p", 0.5)
    if share:
        walk.notes.append(f"dropout ({share:g}) is left out: it does nothing after training; to "
                          "train on, say weight_decay or augment")  # fmt: skip
    _same(walk, call)


def _ignored(walk: _Import, call: Call) -> None:
    """A check of sizes, which makes nothing."""


# What gives another view of the same numbers, in evaluation mode.
_VIEWS = ("alias", "contiguous", "dropout", "feature_dropout", "flatten", "view", "reshape",
          "squeeze")  # fmt: skip
_CALLS: dict[str, Callable[[_Import, Call], None]] = {
    "conv2d.default": _conv, "conv2d.padding": _conv, "linear.default": _linear,
    "batch_norm.default": _norm,
    "add.Tensor": _joined("add"), "add_.Tensor": _joined("add"), "mul.Tensor": _joined("mul"),
    "mul_.Tensor": _joined("mul"),
    "relu.default": _simple("relu"), "relu_.default": _simple("relu"),
    "relu6.default": _relu6, "relu6_.default": _relu6,
    "hardsigmoid.default": _hardsigmoid, "hardsigmoid_.default": _hardsigmoid,
    "hardswish.default": _hardswish, "hardswish_.default": _hardswish,
    "silu.default": _silu, "silu_.default": _silu,
    "hardtanh.default": _hardtanh, "hardtanh_.default": _hardtanh,
    "clamp.default": _clamp, "clamp_min.default": _clamp,
    "sigmoid.default": _simple("sigmoid"), "sigmoid_.default": _simple("sigmoid"),
    "max_pool2d.default": _max_pool, "avg_pool2d.default": _avg_pool,
    "adaptive_avg_pool2d.default": _adaptive_pool, "mean.dim": _mean,
    "flatten.using_ints": _flatten, "view.default": _flatten, "reshape.default": _flatten,
    "squeeze.dims": _flatten,
    "dropout.default": _dropout, "dropout_.default": _dropout, "feature_dropout.default": _dropout,
    "pad.default": _pad, "constant_pad_nd.default": _pad,
    "alias.default": _same, "contiguous.default": _same, "clone.default": _same,
    "_assert_tensor_metadata.default": _ignored, "sym_size.int": _ignored,
}  # fmt: skip
