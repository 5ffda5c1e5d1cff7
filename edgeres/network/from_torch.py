"""From PyTorch: an `nn.Module` or a .pt2 file of `torch.export` in, a network and its tensors out.

A module is exported, saved and read back like a file, so that there is one way in. What isn't in
the table below is refused by name, with the module it stands in.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeres.disk import read_bounded, require_stored
from edgeres.errors import BadInput
from edgeres.network import _pt2
from edgeres.network._pt2 import Call, Program, Ref
from edgeres.network._walk import (
    Flat,
    Imported,
    Walk,
    as_shape,
    conv_attributes,
    require_image,
    require_same,
    trial_images,
    turned,
)
from edgeres.network.graph import INPUT, Value

_MOST = 8 << 30


def from_module(
    model: nn.Module, size_px: int, *, name: str = "", mean: tuple[float, ...] = (0.5,),
    std: tuple[float, ...] = (0.5,),
) -> Imported:  # fmt: skip
    """Read a module, which is left as it was.

    Args:
        model: takes (N, 3, size_px, size_px), gives (N, classes). What trainers wrap around one is
            taken off; of weights on a GPU or of other float types a float32 copy is read.
        mean, std: what its images are normalized with, in units of pixel / 255.

    Raises:
        BadInput: `torch.export` can't trace it, or an operation isn't known; it is named. Or its
            own answers to a few images aren't those of what was read.
    """
    model = _unwrapped(model)
    name = name or type(model).__name__.lower()
    model, notes = _plain(model, name)
    modes = {module: module.training for module in model.modules()}
    image = torch.zeros(2, 3, size_px, size_px)
    shapes = ({0: torch.export.Dim("batch", min=1, max=65536)},)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model.eval(), (image,), dynamic_shapes=shapes)
            saved = BytesIO()
            torch.export.save(program, saved)
        with torch.no_grad():
            theirs = model(trial_images(2, size_px))
    except Exception as error:  # whatever its own code raises
        said = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise BadInput(f"{name}: torch.export can't read this module: {said}") from error
    finally:
        for module, training in modes.items():
            module.training = training
    if not isinstance(theirs, Tensor):
        raise BadInput(f"{name}: gives a {type(theirs).__name__}; a classifier gives a tensor "
                       "(N, classes): give a module whose forward returns it alone")  # fmt: skip
    read, ending = _imported(_pt2.read(saved.getvalue(), name), name, name, mean, std)
    with torch.no_grad():
        require_same(name, ending(read.module(trial_images(2, size_px))), theirs)
    return replace(read, notes=(*notes, *read.notes))


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
    return _imported(_pt2.read(data, str(path)), str(path), path.stem, mean, std)[0]


def _unwrapped(model: nn.Module) -> nn.Module:
    """A module without what trainers put around it: the same answers, under its own names."""
    around = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(model, around) or hasattr(model, "_orig_mod"):  # of torch.compile
        model = model.module if isinstance(model, around) else model._orig_mod  # type: ignore[assignment]
    return model


def _plain(model: nn.Module, name: str) -> tuple[nn.Module, list[str]]:
    """A module whose tensors torch.export takes, a copy where they aren't; what is to be said."""
    if isinstance(model, torch.jit.ScriptModule):
        raise BadInput(f"{name}: is a TorchScript module, which torch.export can't read; give the "
                       "nn.Module that it was made of")  # fmt: skip
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise BadInput(f"{name}: its tensors are on the device 'meta', which holds no numbers; "
                       "give it with its weights")  # fmt: skip
    others = {str(t.dtype).removeprefix("torch.") for t in tensors
              if t.is_floating_point() and t.dtype != torch.float32}  # fmt: skip
    if not others and all(t.device.type == "cpu" and t.is_contiguous() for t in tensors):
        return model, []
    try:
        copied = copy.deepcopy(model).to("cpu").float()
    except Exception as error:  # whatever its own code raises
        raise BadInput(f"{name}: can't be copied to the CPU as float32 ({error}); give "
                       "module.cpu().float()") from error  # fmt: skip
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.data = tensor.data.contiguous()
    said = f"{name}: its weights are {' and '.join(sorted(others))}, and are read as float32"
    return copied, [said] if others else []


def _imported(
    program: Program, where: str, name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Imported, Callable[[Tensor], Tensor]]:
    """The network of a program, and what makes the program's answers of its logits."""
    try:
        image, answer = program.shapes[program.image], program.shapes[program.answer]
    except KeyError as error:
        raise BadInput(f"{where}: doesn't say what it takes and gives") from error
    require_image(where, image)
    walk = _Import(where, program=program)
    walk.run()
    read = walk.finished(walk.values.get(program.answer), answer, image[2], name, (mean, std))
    return read, walk.ending


def _unchanged(logits: Tensor) -> Tensor:
    return logits


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
class _Import(Walk):
    """One walk over a program's calls."""

    program: Program = field(kw_only=True)
    values: dict[str, str] = field(default_factory=dict)  # of the program -> of the network
    # A view -> what it is a view of, and whether it surely has all of its numbers in their order
    storage: dict[str, tuple[str, bool]] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)  # changed in place, who knows how
    padded: dict[str, _Pads] = field(default_factory=dict)  # what only a convolution may read
    # Channels as a table, on the way of being shuffled -> their map, the table, whether it's turned
    tables: dict[str, tuple[str, tuple[int, int], bool]] = field(default_factory=dict)
    flat: dict[str, Flat] = field(default_factory=dict)  # what few operations may read
    columns: dict[str, str] = field(default_factory=dict)  # (N, C, 1) -> the vector
    spread: set[str] = field(default_factory=set)  # a pixel as large as a map, for a product
    ending: Callable[[Tensor], Tensor] = _unchanged

    def run(self) -> None:
        self.values[self.program.image] = INPUT
        self.own(list(self.program.known.values()))
        for call in self.program.calls:
            handler = _CALLS.get(call.target)
            if handler is None:
                raise self.refused(call, f"{call.target} isn't known")
            before = self._read(call)
            try:
                handler(self, call)
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                said = str(error).splitlines() if isinstance(error, ValueError) else []
                why = f" ({said[0][:150]})" if said else ""
                raise self.refused(
                    call, f"{call.target} with these arguments{why} isn't known"
                ) from error
            self._follow(call, before)

    def _read(self, call: Call) -> tuple[str | None, Flat | None]:
        """What the first tensor that a call reads is in the network."""
        ref = call.arguments.get("self", call.arguments.get("input"))
        return self._known(ref.name) if isinstance(ref, Ref) else (None, None)

    def _known(self, name: str) -> tuple[str | None, Flat | None]:
        return self.values.get(name), self.flat.get(name)

    def _follow(self, call: Call, before: tuple[str | None, Flat | None]) -> None:
        """An operation in place changes its input, too, under each of its names.

        Args:
            before: what that was.
        """
        ref = call.arguments.get("self", call.arguments.get("input"))
        kind, writes = call.target.partition(".")[0], call.target.partition(".")[0].endswith("_")
        if not isinstance(ref, Ref) or not call.results:
            return
        root, whole = self.storage.get(ref.name, (ref.name, True))
        if kind in _VIEWS or writes:
            same = whole and (writes or _VIEWS[kind])
            self.storage |= dict.fromkeys(call.results, (root, same))
        if not writes:
            return
        (result, *_) = call.results
        everywhere: tuple[dict[str, Any], ...] = (self.values, self.padded, self.tables, self.flat,
                                                  self.columns)  # fmt: skip
        named = set[str]().union(*everywhere) - {result}
        for name in (n for n in named if self.storage.get(n, (n, True))[0] == root):
            both = whole and self.storage.get(name, (name, True))[1]
            if name == ref.name or (both and self._known(name) == before):
                if result in self.values:
                    self.values[name] = self.values[result]
                elif result in self.flat:
                    self.flat[name] = self.flat[result]
            else:  # perhaps a copy, perhaps a part: whoever reads it is refused
                self.stale.add(name)
                for known in everywhere:
                    known.pop(name, None)

    def refused(self, call: Call, why: str) -> BadInput:
        place = f" in '{call.scope}'" if call.scope else ""
        return BadInput(f"{self.where}: the operation {why}{place}; docs/models.md lists those "
                        "that are")  # fmt: skip

    def value(self, call: Call, key: str) -> str:
        """The network's name of a tensor that a call reads."""
        return self.named(call, call.arguments.get(key))

    def named(self, call: Call, ref: object) -> str:
        """The network's name of one of a call's arguments."""
        if isinstance(ref, Ref) and ref.name in self.padded:
            raise self.refused(call, f"{call.target} of a padded map isn't known")
        if isinstance(ref, Ref) and ref.name in self.flat:
            raise self.refused(call, f"{call.target} of a map that was flattened isn't known")
        if isinstance(ref, Ref) and (ref.name in self.columns or (
            ref.name in self.spread and not self.multiplies(call, ref.name)
        )):  # fmt: skip
            raise self.refused(call, f"{call.target} of a vector in another shape isn't known")
        if isinstance(ref, Ref) and ref.name in self.stale:
            raise self.refused(call, f"{call.target} of what was changed in place under another "
                                     "name (say inplace=False there) isn't known")  # fmt: skip
        if not isinstance(ref, Ref) or ref.name not in self.values:
            raise self.refused(call, f"{call.target} reads what isn't made of the image, which is "
                                     "not known")  # fmt: skip
        return self.values[ref.name]

    def multiplies(self, call: Call, name: str) -> bool:
        """Whether a call multiplies a pixel as large as a map with a map of that size."""
        others = [ref.name for ref in call.arguments.values()
                  if isinstance(ref, Ref) and ref.name != name]  # fmt: skip
        shapes = self.program.shapes
        return call.target.startswith("mul") and len(others) == 1 and (
            others[0] in self.values and others[0] not in self.spread
            and shapes[others[0]] == shapes[name]
        )  # fmt: skip

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

    def shape(self, call: Call) -> tuple[int, ...]:
        """Of what a call makes; 0 is the batch."""
        return self.program.shapes[call.results[0]]

    def learned(self, call: Call, op: str, keys: dict[str, str], **attributes: Value) -> None:
        """An operation with tensors.

        Args:
            keys: of the call -> of the module.
        """
        tensors, weight = self.tensors_of(call, keys)
        self.values[call.results[0]] = self.layer(
            op, self.value(call, "input"), tensors, weight, op, **attributes
        )

    def tensors_of(self, call: Call, keys: dict[str, str]) -> tuple[dict[str, Tensor], str]:
        """The tensors that a call reads, by the module's names, and its weight's name in the file.

        Args:
            keys: of the call -> of the module.
        """
        found = {own: pair for key, own in keys.items()
                 if (pair := self.tensor(call, key)) is not None}  # fmt: skip
        return {own: tensor for own, (_, tensor) in found.items()}, found["weight"][0]

    def plain(
        self, call: Call, op: str, inputs: list[str] | None = None, **attributes: Value
    ) -> None:
        """An operation without tensors, named as the module it stands in."""
        inputs = inputs or [self.value(call, "self")]
        name = self.base(call.scope, op)
        self.values[call.results[0]] = self.put(op, inputs, name, **attributes)

    def ends(self, call: Call, op: str, **attributes: Value) -> None:
        """An operation that cuts values off."""
        flat, base = self.flat.get(call.arguments["self"].name), self.base(call.scope, op)
        if flat is not None and flat.scale is None:
            ended = self.cut(op, flat.source, base, **attributes)
            self.flat[call.results[0]] = replace(flat, source=ended)
            return
        self.values[call.results[0]] = self.cut(op, self.value(call, "self"), base, **attributes)


def _pair(value: Any, otherwise: Any) -> tuple[int, int]:
    value = otherwise if value is None or value == [] else value
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(listed) not in (1, 2) or any(type(v) is not int for v in listed):
        raise ValueError(f"{value!r:.80} isn't two whole numbers")
    return listed[0], listed[-1]


def _conv(walk: _Import, call: Call) -> None:
    given = call.arguments
    tensors, weight = walk.tensors_of(call, {"weight": "weight", "bias": "bias"})
    kernel, dilation = _pair(list(tensors["weight"].shape[2:]), 1), _pair(given.get("dilation"), 1)
    sides = _sides(given.get("padding"), kernel, dilation)
    pads = walk.padded.get(given["input"].name)
    if pads is not None:
        sides = tuple(own + more for own, more in zip(sides, pads.sizes, strict=True))
        walk.fixed_size |= pads.uneven  # as its images' size asked for
    tensors["weight"], padding = walk.evened(tensors["weight"], sides, dilation)
    values = conv_attributes(
        tensors["weight"], bias="bias" in tensors, stride=_pair(given.get("stride"), 1),
        padding=padding, dilation=dilation, groups=int(given.get("groups") or 1),
    )  # fmt: skip
    source = pads.source if pads else walk.value(call, "input")
    walk.values[call.results[0]] = walk.layer("conv2d", source, tensors, weight, "conv2d", **values)


def _sides(padding: object, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, ...]:
    """Left, right, top, bottom."""
    if padding == "same":  # PyTorch has it at stride 1 only
        tall, wide = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        return wide // 2, wide - wide // 2, tall // 2, tall - tall // 2
    tall, wide = (0, 0) if padding == "valid" else _pair(padding, 0)
    return wide, wide, tall, tall


def _linear(walk: _Import, call: Call) -> None:
    flat = walk.flat.get(call.arguments["input"].name)
    if flat is not None:
        tensors, name = walk.tensors_of(call, {"weight": "weight", "bias": "bias"})
        tensors = flat.read_by(tensors)
        walk.values[call.results[0]] = walk.whole_map(flat.source, tensors, name, "linear")
        return
    (_, weight) = walk.tensor(call, "weight") or ("", torch.empty(0, 0))
    walk.learned(call, "linear", {"weight": "weight", "bias": "bias"},
               **{"in": weight.shape[1], "out": weight.shape[0],
                  "bias": call.arguments.get("bias") is not None})  # fmt: skip


def _norm(walk: _Import, call: Call) -> None:
    given = call.arguments
    statistics = walk.tensor(call, "running_var")
    if statistics is None or given.get("training"):
        raise walk.refused(call, "batch_norm without running statistics isn't known")
    keys = {key: key for key in ("weight", "bias", "running_mean", "running_var")}
    if given.get("weight") is None:
        raise walk.refused(call, "batch_norm without a scale isn't known")
    momentum, eps = given.get("momentum"), float(given.get("eps", 1e-5))
    tensors, weight = walk.tensors_of(call, keys)
    flat, (result,) = walk.flat.get(given["input"].name), call.results[:1]
    if flat is not None:
        scale = tensors["weight"] / (tensors["running_var"] + eps).sqrt()
        walk.flat[result] = flat.scaled(scale, tensors["bias"] - tensors["running_mean"] * scale)
        walk.folded_norm()
        return
    walk.values[result] = walk.norm(
        walk.value(call, "input"), tensors, weight, "batch_norm", len(walk.shape(call)) == 2,
        features=len(statistics[1]), eps=eps, momentum=0.1 if momentum is None else float(momentum),
    )  # fmt: skip


def _joined(op: str) -> Callable[[_Import, Call], None]:
    def handler(walk: _Import, call: Call) -> None:
        if call.arguments.get("alpha", 1) != 1:
            raise walk.refused(call, f"{call.target} with a factor isn't known")
        walk.plain(call, op, [walk.value(call, "self"), walk.value(call, "other")])

    return handler


def _cat(walk: _Import, call: Call) -> None:
    rank = len(walk.shape(call))
    if rank != 4 or int(call.arguments.get("dim") or 0) % 4 != 1:
        raise walk.refused(call, "cat along another axis than a map's channels isn't known")
    refs = call.arguments["tensors"]
    parts = [(walk.named(call, ref), walk.program.shapes[ref.name][1]) for ref in refs]
    walk.values[call.results[0]] = walk.concat(parts, walk.base(call.scope, "concat"))


def _slices(walk: _Import, call: Call) -> None:
    """chunk, split, narrow and x[:, a:b] along channels."""
    given, x = call.arguments, walk.value(call, "self")
    kind, shape = call.target.partition(".")[0], walk.program.shapes[given["self"].name]
    if len(shape) != 4 or int(given.get("dim") or 0) % 4 != 1 or int(given.get("step") or 1) != 1:
        raise walk.refused(call, f"{call.target} along another axis than a map's channels isn't "
                                 "known")  # fmt: skip
    first, base = 0, walk.base(call.scope, kind)
    if kind in ("slice", "narrow"):
        first = int(given.get("start") or 0)
        first = max(0, first + shape[1] if first < 0 else first)
    for number, result in enumerate(call.results):
        size = walk.program.shapes[result][1]  # as torch.export found it
        name = walk.free(f"{base}.part{number}" if len(call.results) > 1 else base)
        walk.values[result] = walk.pick(x, shape[1], range(first, first + size), name)
        first += size


def _turned(walk: _Import, call: Call) -> None:
    """The step of a channel shuffle between two reshapes."""
    ref = call.arguments["self"]
    x = walk.tables.get(ref.name)
    if ref.name in walk.stale:
        walk.named(call, ref)  # refuses it
    if x is None or sorted(int(call.arguments[k]) % 5 for k in ("dim0", "dim1")) != [1, 2]:
        raise walk.refused(call, f"{call.target} isn't known but in a channel shuffle")
    walk.tables[call.results[0]] = (*x[:2], not x[2])


def _shuffled(walk: _Import, call: Call) -> bool:
    """Whether a reshape begins or ends a channel shuffle."""
    before, after = walk.program.shapes[call.arguments["self"].name], walk.shape(call)
    if len(before) == 4 and len(after) == 5 and after[3:] == before[2:]:
        walk.tables[call.results[0]] = walk.value(call, "self"), (after[1], after[2]), False
        return True
    table = walk.tables.get(call.arguments["self"].name)
    if table is None or len(after) != 4 or after[2:] != before[3:]:
        return False
    x, (rows, columns), is_turned = table
    order = turned(rows, columns) if is_turned else range(rows * columns)
    name = walk.base(call.scope, "shuffle")
    walk.values[call.results[0]] = walk.pick(x, rows * columns, order, name)
    return True


def _shuffle(walk: _Import, call: Call) -> None:
    count, groups = walk.shape(call)[1], int(call.arguments["groups"])
    x, name = walk.value(call, "self"), walk.base(call.scope, "shuffle")
    order = turned(groups, count // groups)
    walk.values[call.results[0]] = walk.pick(x, count, order, name)


def _simple(op: str) -> Callable[[_Import, Call], None]:
    return lambda walk, call: walk.plain(call, op)


def _relu(walk: _Import, call: Call) -> None:
    walk.ends(call, "relu")


def _hardtanh(walk: _Import, call: Call) -> None:
    low, high = call.arguments.get("min_val", -1), call.arguments.get("max_val", 1)
    if low != 0 or high <= 0:
        raise walk.refused(call, f"hardtanh from {low} to {high} isn't known")
    walk.ends(call, "clamp", most=float(high))


def _clamp(walk: _Import, call: Call) -> None:
    low, high = call.arguments.get("min"), call.arguments.get("max")
    if low != 0 or (high is not None and high <= 0):
        raise walk.refused(call, f"{call.target} from {low} to {high} isn't known")
    if high is None:
        walk.ends(call, "relu")
    else:
        walk.ends(call, "clamp", most=float(high))


def _relu6(walk: _Import, call: Call) -> None:
    walk.ends(call, "clamp", most=6.0)


def _hardsigmoid(walk: _Import, call: Call) -> None:
    base, x = walk.base(call.scope, "hardsigmoid"), walk.value(call, "self")
    walk.values[call.results[0]] = walk.hard_gate(x, walk.shape(call)[1:], base)


def _hardswish(walk: _Import, call: Call) -> None:
    """x hardsigmoid(x)."""
    base, x = walk.base(call.scope, "hardswish"), walk.value(call, "self")
    gate = walk.hard_gate(x, walk.shape(call)[1:], base)
    walk.values[call.results[0]] = walk.put("mul", [x, gate], f"{base}.mul")


def _silu(walk: _Import, call: Call) -> None:
    """x sigmoid(x)."""
    base, x = walk.base(call.scope, "silu"), walk.value(call, "self")
    gate = walk.put("sigmoid", [x], f"{base}.sigmoid")
    walk.values[call.results[0]] = walk.put("mul", [x, gate], f"{base}.mul")


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
    shape = walk.shape(call)
    before = walk.program.shapes[call.arguments["self"].name]
    if _shuffled(walk, call):
        return
    if len(before) == 4 and shape == before[:2] and before[2:] == (1, 1):
        walk.fixed_size |= not walk.pooled(walk.value(call, "self"))
        walk.plain(call, "flatten")
    elif shape == before:
        _same(walk, call)
    elif len(before) == 4 and shape == (before[0], math.prod(before[1:])):
        walk.flat[call.results[0]] = Flat(walk.value(call, "self"), tuple(before[1:]))
    elif len(before) == 2 and shape == (*before, 1):
        walk.columns[call.results[0]] = walk.value(call, "self")
    elif before[2:] in ((), (1,)) and shape == (*before[:2], 1, 1):  # a vector, or its column
        own = walk.columns.get(call.arguments["self"].name) or walk.value(call, "self")
        walk.plain(call, "unflatten", [own])
    else:
        raise walk.refused(
            call, f"{call.target} of {as_shape(before)} to {as_shape(shape)} isn't known"
        )


def _expand(walk: _Import, call: Call) -> None:
    """A pixel as large as a map, which a product makes of it itself."""
    before, shape = walk.program.shapes[call.arguments["self"].name], walk.shape(call)
    if shape != before and (len(before) != 4 or before[:2] != shape[:2] or before[2:] != (1, 1)):
        raise walk.refused(
            call, f"{call.target} of {as_shape(before)} to {as_shape(shape)} isn't known"
        )
    _same(walk, call)
    walk.spread |= {call.results[0]} if shape != before else set()


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
    name = call.arguments[key].name
    if name in walk.tables:
        walk.tables[call.results[0]] = walk.tables[name]
        return
    if name in walk.flat:
        walk.flat[call.results[0]] = walk.flat[name]
        return
    walk.values[call.results[0]] = walk.value(call, key)


def _dropout(walk: _Import, call: Call) -> None:
    walk.dropped(call.arguments.get("p", 0.5))
    _same(walk, call)


def _softmax(walk: _Import, call: Call) -> None:
    """At the end: left out, what stands before it are the logits."""
    source, kind = walk.value(call, "self"), call.target.partition(".")[0]
    flat = len(walk.shape(call)) == 2 and call.arguments["dim"] in (1, -1)
    if call.results[0] != walk.program.answer or not flat:
        raise walk.refused(call, f"{kind} before the end isn't known")
    walk.softened(kind)
    walk.ending = partial(getattr(torch, kind), dim=1)
    walk.values[call.results[0]] = source


def _ignored(walk: _Import, call: Call) -> None:
    """A check of sizes, which makes nothing."""


# What gives another view of the same numbers, in evaluation mode, or perhaps a copy; and whether it
# surely is a view of all of them in their order.
_VIEWS = {"alias": True, "dropout": True, "feature_dropout": True, "view": True, "squeeze": True,
          "contiguous": False, "flatten": False, "reshape": False, "chunk": False, "split": False,
          "split_with_sizes": False, "slice": False, "narrow": False,
          "transpose": False, "unsqueeze": True, "expand": False,
          "expand_as": False}  # fmt: skip
_CALLS: dict[str, Callable[[_Import, Call], None]] = {
    "conv2d.default": _conv, "conv2d.padding": _conv, "linear.default": _linear,
    "batch_norm.default": _norm,
    "add.Tensor": _joined("add"), "add_.Tensor": _joined("add"), "mul.Tensor": _joined("mul"),
    "mul_.Tensor": _joined("mul"),
    "cat.default": _cat, "chunk.default": _slices, "split.Tensor": _slices,
    "split_with_sizes.default": _slices, "slice.Tensor": _slices, "narrow.default": _slices,
    "transpose.int": _turned, "channel_shuffle.default": _shuffle,
    "relu.default": _relu, "relu_.default": _relu,
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
    "squeeze.dims": _flatten, "unsqueeze.default": _flatten, "expand.default": _expand,
    "expand_as.default": _expand,
    "dropout.default": _dropout, "dropout_.default": _dropout, "feature_dropout.default": _dropout,
    "softmax.int": _softmax, "log_softmax.int": _softmax,
    "pad.default": _pad, "constant_pad_nd.default": _pad,
    "alias.default": _same, "contiguous.default": _same, "clone.default": _same,
    "_assert_tensor_metadata.default": _ignored, "sym_size.int": _ignored,
}  # fmt: skip
