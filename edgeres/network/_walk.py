"""What every importer has in common: operations put one behind another under names of their own.

An importer is a table from a format's operations to calls of a `Walk`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from edgeres.errors import BadInput
from edgeres.network import document
from edgeres.network.graph import INPUT, Network, Node, Value, picks, united, width
from edgeres.network.module import NetworkModule
from edgeres.network.ops import LARGEST
from edgeres.types import Preprocess, QuantParams

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
"""mean and std as R, G, B, in units of pixel / 255."""


_MOST_JOINED = 4  # by one concatenation: XNNPACK takes few
_CLOSE = 1e-3  # of the largest answer: far more than the order of sums makes
_MOST_PICKED = 1 << 26  # weights of fixed convolutions in a network
_ENDING = ("conv2d", "linear", "batch_norm", "add", "avg_pool", "global_avg_pool")  # in a ReLU
_MOVING = ("concat", "max_pool", "flatten", "unflatten")  # make no numbers of their own


@dataclass(frozen=True)
class Integers:
    """What a file that is quantized already says of its codes, all as int8.

    Attributes:
        scales: an operation -> of what it makes; `input`; `<layer>.weight`.
        biases: `<layer>.bias` -> its codes, in steps of input scale * weight scale.
        strange: why the known graph can't have the same codes, a sentence each.
        asked: codes of a few images (N, 3, H, H) and the file's own of its answers (N, classes);
            None where it couldn't be asked.
    """

    scales: Mapping[str, QuantParams]
    biases: Mapping[str, np.ndarray]
    strange: tuple[str, ...]
    asked: tuple[np.ndarray, np.ndarray] | None


@dataclass(frozen=True)
class Imported:
    """What was read.

    Attributes:
        module: the network with its weights, in evaluation mode.
        notes: what was left out or changed, a sentence each.
        fixed_size: it is right for images of the size it was exported with only.
        normalization: what the file says of its images; None: nothing.
        integers: of a file that is quantized already.
    """

    module: NetworkModule
    notes: tuple[str, ...]
    fixed_size: bool
    normalization: Normalization | None = None
    integers: Integers | None = None


@dataclass(frozen=True, eq=False)
class Flat:
    """A map of several pixels as a vector, which a linear layer reads.

    Attributes:
        source: the map, of `sides`: channels, height and width.
        last: whether its channels came last.
        scale, shift: what its numbers are multiplied by, and what is added then, in the vector's
            order; None: nothing.
    """

    source: str
    sides: tuple[int, ...]
    last: bool = False
    scale: Tensor | None = None
    shift: Tensor | None = None

    def scaled(self, scale: Tensor, shift: Tensor) -> Flat:
        """Multiplied and added to once more."""
        if self.scale is not None and self.shift is not None:
            scale, shift = self.scale * scale, self.shift * scale + shift
        return replace(self, scale=scale, shift=shift)

    def read_by(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A linear layer's weight (O, C H W) and bias as those of a convolution of the map."""
        weight, found = tensors["weight"], dict(tensors)
        if self.scale is not None and self.shift is not None:
            found["bias"] = weight @ self.shift + tensors.get("bias", 0)
            weight = weight * self.scale
        channels, height, width = self.sides
        if self.last:
            weight = weight.reshape(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()
        return {**found, "weight": weight.reshape(-1, channels, height, width)}


@dataclass
class Walk:
    """One walk over a file's operations.

    Attributes:
        where: the file, for messages.
        nodes: of the network, by name, in the order of the file.
        owners: modules that have tensors.
        layers: those among them with a weight, operations to be.
    """

    where: str
    nodes: dict[str, Node] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    owners: set[str] = field(default_factory=set)
    layers: set[str] = field(default_factory=set)
    fixed_size: bool = False
    _around: set[str] = field(default_factory=set)  # what operations stand in
    _numbers: Counter[str] = field(default_factory=Counter)
    _weights: set[str] = field(default_factory=set)
    _cuts: dict[Node, str] = field(default_factory=dict)  # without its name -> its name
    _wholes: dict[str, str] = field(default_factory=dict)  # flattened -> its `whole_map`
    _gone: dict[str, str] = field(default_factory=dict)  # what only changed a shape -> the map
    _picked: int = 0  # weights of fixed convolutions, so far
    # A name -> what it picks channels of, how many that has, and which.
    _picks: dict[str, tuple[str, int, Sequence[int]]] = field(default_factory=dict)

    def own(self, weights: list[str]) -> None:
        """Learn the names of a file's tensors."""
        pairs = [name.rpartition(".") for name in weights]
        self.owners = {owner for owner, *_ in pairs}
        self.layers = {owner for owner, _, leaf in pairs if leaf == "weight" and owner}

    def put(self, op: str, inputs: list[str], name: str, **attributes: Value) -> str:
        """An operation of the network; its name."""
        self.nodes[name] = Node.of(name, op, tuple(inputs), **attributes)
        self._around.update(_outer(name))
        return name

    def layer(
        self, op: str, source: str, tensors: dict[str, Tensor], weight: str, otherwise: str,
        **attributes: Value,
    ) -> str:  # fmt: skip
        """An operation with tensors, named as the module that has them.

        Args:
            weight: what its weight is called in the file.
            otherwise: its name where that doesn't end in `.weight`.
        """
        owner, _, leaf = weight.rpartition(".")
        name = owner
        if not owner or leaf != "weight" or self._held(owner):
            name = self.free(f"{owner}.{op}" if owner else otherwise)
        if weight in self._weights:
            self.notes.append(f"'{owner or weight}' is used more than once: each use has the same "
                              "weights, and is trained for itself")  # fmt: skip
        self._weights.add(weight)
        self.tensors |= {f"{name}.{key}": value for key, value in tensors.items()}
        if op == "batch_norm":
            self.tensors[f"{name}.num_batches_tracked"] = torch.tensor(0)
        return self.put(op, [source], name, **attributes)

    def whole_map(self, source: str, tensors: dict[str, Tensor], weight: str, other: str) -> str:
        """A linear layer of a map that was flattened: a convolution as large as the map.

        Args:
            tensors: its weight (O, C, H, W), and its bias if it has one.
            weight, other: as of `layer`.
        """
        self.fixed_size = True
        self.notes.append("a linear layer of a map that was flattened is a convolution as large as "
                          "the map: the same numbers")  # fmt: skip
        values = conv_attributes(tensors["weight"], bias="bias" in tensors, stride=(1, 1),
                                 padding=(0, 0), dilation=(1, 1), groups=1)  # fmt: skip
        name = self.layer("conv2d", source, tensors, weight, other, **values)
        flat = self.put("flatten", [name], self.free(f"{name}.flatten"))
        self._wholes[flat] = name
        return flat

    def norm(
        self, source: str, tensors: dict[str, Tensor], weight: str, other: str, vector: bool,
        **attributes: Value,
    ) -> str:  # fmt: skip
        """A batch norm; one of a vector is one of a map of one pixel.

        Args:
            tensors, weight, other: as of `layer`.
        """
        if not vector:
            return self.layer("batch_norm", source, tensors, weight, other, **attributes)
        source = self.put("unflatten", [source], self.free(f"{other}_map"))
        name = self.layer("batch_norm", source, tensors, weight, other, **attributes)
        return self.put("flatten", [name], self.free(f"{name}.flatten"))

    def stretch(
        self, source: str, scale: np.ndarray, shift: np.ndarray, base: str, *, vector: bool
    ) -> str:
        """Each channel multiplied by a number, and added to: a depthwise convolution."""
        self.notes.append("what multiplies each channel by a number of its own, or adds one, is a "
                          "depthwise convolution: the same numbers")  # fmt: skip
        if vector:
            source = self.put("unflatten", [source], self.free(f"{base}_map"))
        count = len(scale)
        values = {**_fixed_point(count, count, groups=count, bias=True), "trained": True}
        name = self.put("conv2d", [source], base, **values)
        self.tensors[f"{name}.weight"] = torch.tensor(scale, dtype=torch.float32)[
            :, None, None, None
        ]
        self.tensors[f"{name}.bias"] = torch.tensor(shift, dtype=torch.float32)
        if not vector:
            return name
        flat = self.put("flatten", [name], self.free(f"{name}.flatten"))
        self._wholes[flat] = name
        return flat

    def folded_norm(self) -> None:
        """Say what became of a batch norm of a map that was flattened."""
        self.notes.append("a batch norm of a map that was flattened is in the linear layer behind "
                          "it: the same numbers, and it isn't trained on")  # fmt: skip

    def evened(
        self, weight: Tensor, sides: tuple[int, ...], dilation: tuple[int, int]
    ) -> tuple[Tensor, tuple[int, int]]:
        """A convolution's kernel and padding (height, width) that pad both sides alike.

        A kernel that has a column of zeros in front sees one column of padding less there.

        Args:
            sides: its padding left, right, top, bottom.

        Raises:
            ValueError: it is dilated and the zeros fall between its rows, or are more than it has.
        """
        left, right, top, bottom = sides
        grown = []
        pairs = ((left, right, dilation[1], weight.shape[3]), (top, bottom, dilation[0],
                                                               weight.shape[2]))  # fmt: skip
        for low, high, step, side in pairs:
            if (high - low) % step or abs(high - low) > side * step or min(low, high) < 0:
                raise ValueError(
                    "padding between the rows of a dilated kernel, or more than it has"
                )
            grown += [max(0, high - low) // step, max(0, low - high) // step]
        if any(grown):
            self.notes.append("a convolution that pads more on one side than on the other, as "
                              "TensorFlow's do, has a larger kernel, with zeros there: the same "
                              "numbers, for more multiply-accumulates")  # fmt: skip
            weight = nn.functional.pad(weight, grown)
        return weight, (max(top, bottom), max(left, right))

    def hard_gate(
        self, source: str, shape: tuple[int, ...], base: str, alpha: float = 1 / 6,
        beta: float = 0.5,
    ) -> str:  # fmt: skip
        """clamp(alpha x + beta, 0, 1): the sum as a depthwise convolution, which every runtime has
        in integers; hard-sigmoid has no integer kernel in some, and is float there.

        Args:
            shape: of the value without its batch, (C, H, W) or (C,).
        """
        self.notes.append("hard-sigmoid and hard-swish are computed by a depthwise convolution, to "
                          "the same numbers, so that they run in integers")  # fmt: skip
        channels, vector = shape[0], len(shape) == 1
        if vector:  # a convolution reads a map
            source = self.put("unflatten", [source], f"{base}.unflatten")
        values = _fixed_point(channels, channels, groups=channels, bias=True)
        shift = self.put("conv2d", [source], f"{base}.shift", **values)
        self.tensors[f"{shift}.weight"] = torch.full((channels, 1, 1, 1), alpha)
        self.tensors[f"{shift}.bias"] = torch.full((channels,), beta)
        gate = self.put("clamp", [shift], f"{base}.clamp", most=1.0)
        return self.put("flatten", [gate], f"{base}.flatten") if vector else gate

    def cut(self, op: str, source: str, base: str, **attributes: Value) -> str:
        """An operation that cuts values off, in front of what only moves them: the same numbers,
        and a layer ends with it."""
        before = self.nodes.get(source)
        if before is None or before.op not in _MOVING:
            key = Node.of("", op, (source,), **attributes)
            if key not in self._cuts:  # one of several that are the same
                self._cuts[key] = self.put(op, [source], base, **attributes)
            return self._cuts[key]
        parts = [self.cut(op, part, f"{base}.part{number}", **attributes)
                 for number, part in enumerate(before.inputs)]  # fmt: skip
        return self.put(before.op, parts, f"{base}.{before.op}", **before.values)

    def concat(self, parts: Sequence[tuple[str, int]], base: str) -> str:
        """Maps one behind another along their channels.

        Those whose scale is fixed in integers (the image, a sigmoid) are behind a convolution that
        changes nothing, as what is concatenated has one scale. A long one is several shorter ones.

        Args:
            parts: names, and how many channels each has.
        """
        names: list[str] = []
        for name, count in parts:
            node = self.nodes.get(self._maker(name))
            free = node is not None and node.op != "sigmoid"
            names.append(name if free else self._fixed(name, count, range(count),
                                                       self.free(f"{base}.same")))  # fmt: skip
        names = self._joined(names)
        while len(names) > _MOST_JOINED:
            first = self.put("concat", names[:_MOST_JOINED], self.free(f"{base}.part"))
            names = [first, *names[_MOST_JOINED:]]
        if len(names) == 1:
            return names[0]
        inside = any(name.startswith(f"{base}.") for name in self._around | set(self.nodes))
        return self.put("concat", names, f"{base}.all" if inside else base)

    def _maker(self, name: str) -> str:
        """What made a value's numbers, through what only moves those of one value."""
        while (node := self.nodes.get(name)) is not None and node.op in _MOVING[1:]:
            name = node.inputs[0]
        return name

    def _joined(self, parts: list[str]) -> list[str]:
        """With what an earlier concatenation joined already, as those of DenseNet do."""
        if len(parts) <= _MOST_JOINED:
            return parts
        joined: dict[str, tuple[str, ...]] = {}
        for node in self.nodes.values():
            if node.op == "concat":
                names = tuple(n for i in node.inputs for n in joined.get(i, (i,)))
                if len(names) <= len(parts):
                    joined[node.name] = names
        known = {names: name for name, names in joined.items()
                 if names == tuple(parts[: len(names)])}  # fmt: skip
        if not known:
            return parts
        longest = max(known, key=len)
        return [known[longest], *parts[len(longest) :]]

    def pick(self, source: str, count: int, channels: Sequence[int], name: str) -> str:
        """Some of a map's channels, in some order.

        Args:
            count: how many the map has.

        Raises:
            ValueError: it hasn't these, or they are more than any network has.
        """
        if not 0 < len(channels) <= LARGEST or not 0 < count <= LARGEST:
            raise ValueError(f"{len(channels)} of {count} channels")
        if list(channels) == list(range(count)):
            return source
        self.notes.append("slices and shuffles of channels are 1x1 convolutions of zeros and ones, "
                          "to the same numbers: their multiply-accumulates count")  # fmt: skip
        return self._fixed(source, count, channels, name)

    def _fixed(self, source: str, count: int, channels: Sequence[int], name: str) -> str:
        """A 1x1 convolution of zeros and ones, which is exact in integers and which every runtime
        has; one for both where its channels were picked themselves."""
        if source in self._picks:
            source, count, before = self._picks[source]
            channels = [before[channel] for channel in channels]
        self._picked += count * len(channels)
        if not 0 <= min(channels) <= max(channels) < count or self._picked > _MOST_PICKED:
            raise ValueError(f"{len(channels)} of {count} channels")
        self._picks[name] = source, count, channels
        weight = torch.zeros(len(channels), count, 1, 1)
        weight[range(len(channels)), list(channels)] = 1
        self.tensors[f"{name}.weight"] = weight
        return self.put("conv2d", [source], name, **_fixed_point(count, len(channels)))

    def softened(self, kind: str) -> None:
        """Say that a softmax at the end was left out."""
        self.notes.append(
            f"the {kind} at its end is left out: its answers are logits, in the same"
            " order; a distillation's temperature divides them as it does any other's"
        )

    def _ones(self, source: str, count: int, name: str) -> Node:
        """A depthwise convolution that changes nothing."""
        self.tensors[f"{name}.weight"] = torch.ones(count, 1, 1, 1)
        return Node.of(name, "conv2d", (source,), **_fixed_point(count, count, groups=count))

    def dropped(self, share: float) -> None:
        """Say that a dropout is left out."""
        if share:
            self.notes.append(f"dropout ({share:g}) is left out: it does nothing after training; "
                              "to train on, say weight_decay or augment")  # fmt: skip

    def pooled(self, name: str) -> bool:
        """Whether a map has one pixel whatever the image's size: a global pool is before it."""
        while name in self.nodes and self.nodes[name].op not in ("global_avg_pool", "unflatten"):
            name = self.nodes[name].inputs[0]
        return name in self.nodes

    def base(self, scope: str, op: str) -> str:
        """The name of the module that an operation stands in; of one among others, one below."""
        whole = any(o == scope or o.startswith(scope + ".") for o in self.owners)
        return self.free(f"{scope}.{op}" if scope and whole else scope or op)

    def free(self, base: str) -> str:
        """A name that no other operation has, nor is inside of: `bn1.act` behind an operation
        `bn1` is `bn1_act`."""
        for used in _outer(base):
            if used in self.nodes or used in self.layers:
                base = f"{used}_{base[len(used) + 1 :].replace('.', '_')}"
                break
        name = base
        while name in self.owners or self._held(name):
            self._numbers[base] += 1
            name = f"{base}_{self._numbers[base] + 1}"
        return name

    def _held(self, name: str) -> bool:
        return (
            name in self.nodes or name in self._around or any(n in self.nodes for n in _outer(name))
        )

    def _once(self, nodes: tuple[Node, ...], output: str) -> tuple[tuple[Node, ...], str]:
        """Without what is computed twice, which converters make one of; and the output's name."""
        first: dict[tuple[object, ...], str] = {}
        instead: dict[str, str] = {}
        found = []
        for node in nodes:
            inputs = tuple(instead.get(name, name) for name in node.inputs)
            node = Node(node.name, node.op, inputs, node.attributes)
            tensors = [t for t in (self.tensors.get(f"{node.name}.{key}")
                                   for key in ("weight", "bias")) if t is not None]  # fmt: skip
            if node.op not in ("linear", "batch_norm") and not node.values.get("trained"):
                plain = Node("", node.op, inputs, node.attributes)
                key = (plain, *(t.numpy().tobytes() for t in tensors))
                instead[node.name] = first.setdefault(key, node.name)
                if instead[node.name] != node.name:
                    continue
            found.append(node)
        return tuple(found), instead.get(output, output)

    def _ended(self, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        """With a depthwise convolution of ones behind what is cut off at 6, say, and joined with
        values that aren't: they have one scale, whose codes go on; and behind what is joined
        twice."""
        by_name, channels, ends = {n.name: n for n in nodes}, {INPUT: 3}, set[str]()
        for node in nodes:
            channels[node.name] = width(node, channels)

        def made(name: str) -> str:
            while name in by_name and by_name[name].op in _MOVING[1:]:
                (name,) = by_name[name].inputs
            return name

        joins = [n for n in nodes if n.op == "concat" or picks(n)]
        for group in united((n.name, *map(made, n.inputs)) for n in joins):
            parts = group - {n.name for n in joins}
            cut = {n for n in parts if n in by_name and by_name[n].op == "clamp"}
            if cut != parts or len({by_name[n].attributes for n in cut}) > 1:
                ends |= cut
        apart = {name: self.free(f"{name}_joined") for name in sorted(ends)}
        moved: set[str] = {n.name for n in joins}  # and what leads to them
        for node in reversed(nodes):
            users = [n for n in nodes if node.name in n.inputs] if node.op in _MOVING[1:] else []
            moved |= {node.name} if any(n.name in moved for n in users) else set()
        found = []
        for node in nodes:
            inputs = node.inputs
            if node.name in moved:
                inputs = tuple(apart.get(name, name) for name in inputs)
            if node.op == "concat":  # XNNPACK joins no tensor with itself
                for at, name in enumerate(inputs):
                    if name in inputs[:at]:
                        one = self._ones(name, channels[node.inputs[at]],
                                         self.free(f"{node.name}_{at}"))  # fmt: skip
                        found.append(one)
                        inputs = (*inputs[:at], one.name, *inputs[at + 1 :])
            found.append(Node(node.name, node.op, inputs, node.attributes))
            if node.name in apart:
                found.append(self._ones(node.name, channels[node.name], apart[node.name]))
                self.notes.append("a ReLU6 that is concatenated with what isn't cut off is before "
                                  "a depthwise convolution of ones: the same numbers")  # fmt: skip
        return tuple(found)

    def _mapped(self, nodes: tuple[Node, ...], output: str) -> tuple[Node, ...]:
        """Without vectors that become maps again, as a squeeze-and-excitation's: they were maps of
        one pixel all along, and linear layers on the way are 1x1 convolutions."""
        by_name, vectors = {node.name: node for node in nodes}, _vectors(nodes)
        readers: dict[str, list[Node]] = {name: [] for name in (INPUT, *by_name)}
        for node in nodes:
            for name in node.inputs:
                readers[name].append(node)
        inside: set[str] = set()
        for node in nodes:
            if node.op != "unflatten":
                continue
            found, waiting = set[str](), list(node.inputs)
            while waiting:
                if (name := waiting.pop()) in vectors and name not in found:
                    found.add(name)
                    waiting += () if by_name[name].op == "flatten" else by_name[name].inputs
            read = [reader for name in found if by_name[name].op != "flatten"
                    for reader in readers[name]]  # fmt: skip
            if output not in found and all(
                reader.op == "unflatten" or reader.name in found for reader in read
            ):
                inside |= {node.name, *found}
        # What stands for an `unflatten` that is gone; and, for those inside, for a `flatten`.
        maps: dict[str, str] = {}
        inner: dict[str, str] = {}
        kept = []
        for node in nodes:
            within = node.name in inside
            inputs = tuple(maps.get(n, inner.get(n, n) if within else n) for n in node.inputs)
            if within and node.op == "unflatten":
                maps[node.name] = inputs[0]
                continue
            if within and node.op == "flatten":
                inner[node.name] = inputs[0]
                if all(reader.name in inside for reader in readers[node.name]):
                    continue
            if within and node.op == "linear":
                weight = self.tensors[f"{node.name}.weight"][:, :, None, None]
                self.tensors[f"{node.name}.weight"] = weight
                values = conv_attributes(
                    weight, bias=bool(node.values["bias"]), stride=(1, 1), padding=(0, 0),
                    dilation=(1, 1), groups=1,
                )  # fmt: skip
                kept.append(Node.of(node.name, "conv2d", inputs, **values))
            else:
                kept.append(Node(node.name, node.op, inputs, node.attributes))
        self._gone = inner | maps
        return tuple(kept)

    def _apart(self, nodes: tuple[Node, ...], output: str) -> tuple[Node, ...]:
        """With a depthwise convolution of ones in front of what cuts values off that are read
        elsewhere, too: the same numbers, and in integers a layer ends with it."""
        readers = Counter(name for node in nodes for name in node.inputs)
        readers[output] += 1
        channels, vectors = {INPUT: 3}, _vectors(nodes)
        found = []
        for node in nodes:
            channels[node.name] = width(node, channels)
            (source, *_) = node.inputs
            before = self.nodes.get(source)
            alone = readers[source] == 1 and before is not None and before.op in _ENDING
            if node.op in ("relu", "clamp") and not alone and source not in vectors:
                count, name = channels[source], self.free(f"{node.name}_same")
                values = _fixed_point(count, count, groups=count)
                found.append(Node.of(name, "conv2d", (source,), **values))
                self.tensors[f"{name}.weight"] = torch.ones(count, 1, 1, 1)
                self.notes.append("a ReLU whose input is read elsewhere, too, is behind a "
                                  "depthwise convolution of ones: the same numbers")  # fmt: skip
                node = Node(node.name, node.op, (name,), node.attributes)
            found.append(node)
        return tuple(found)

    def finished(
        self, output: str | None, answer: tuple[int, ...], size_px: int, name: str,
        normalization: Normalization, *, codes: bool = False,
    ) -> Imported:  # fmt: skip
        """The network of all that the output is made of.

        Args:
            output: the network's name of the output.
            answer: its shape; 0 stands for the batch.
            codes: a file says which scales its values have.

        Raises:
            BadInput: it isn't made of the image, or is no vector of logits, or a number is out of
                range.
        """
        if len(answer) != 2 or not answer[1]:
            raise BadInput(f"{self.where}: gives {as_shape(answer)}; a classifier gives (N, "
                           "classes)")  # fmt: skip
        if output is None or output == INPUT:
            raise BadInput(f"{self.where}: its output isn't made of its image")
        nodes = self._mapped(_reaching(tuple(self.nodes.values()), output), output)
        if not codes:
            nodes, output = self._once(nodes, output)
            nodes = self._ended(nodes)
        nodes = self._apart(nodes, output)
        network = Network(
            _plain(name), nodes, output, answer[1], Preprocess(size_px, *normalization)
        )
        try:
            document.from_json(json.loads(json.dumps(document.to_json(network))))
        except BadInput as error:
            said = str(error).removeprefix("spec.json: ")
            raise BadInput(f"{self.where}: {said}") from error
        module = NetworkModule(network).eval()
        try:
            module.load_state_dict({key: self.tensors[key] for key in module.state_dict()})
        except (KeyError, RuntimeError) as error:
            said = str(error).splitlines()[-1].strip()[:200]
            raise BadInput(f"{self.where}: tensors and operations don't fit: {said}") from error
        return Imported(module, tuple(dict.fromkeys(self.notes)), self.fixed_size)


def maker(network: Network, name: str) -> str:
    """The operation that made a value's codes: the others move them, or end them."""
    by_name = network.by_name
    while name in by_name and by_name[name].op in (*_MOVING[1:], "relu", "clamp"):
        name = by_name[name].inputs[0]
    return name


def trial_codes(count: int, size_px: int) -> np.ndarray:
    """What a file of integers is asked with: noise, int8 (count, 3, H, H)."""
    draw = np.random.default_rng(0)
    return draw.integers(-128, 128, (count, 3, size_px, size_px), np.int8)


def _vectors(nodes: tuple[Node, ...]) -> set[str]:
    """Which values are vectors."""
    found: set[str] = set()
    for node in nodes:
        of_vectors = node.op != "unflatten" and not found.isdisjoint(node.inputs)
        if node.op in ("linear", "flatten") or of_vectors:
            found.add(node.name)
    return found


def trial_images(count: int, size_px: int) -> Tensor:
    """What a network that was read is asked with, beside the one that it was read from: noise and
    soft blots, (count, 3, H, H), the same at every call."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 3, max(1, size_px // 8), max(1, size_px // 8), generator=generator)
    noise = torch.randn(count, 3, size_px, size_px, generator=generator)
    return noise / 4 + nn.functional.interpolate(coarse, size=(size_px, size_px), mode="bilinear")


def require_same(where: str, ours: Tensor, theirs: Tensor) -> None:
    """Refuse a network whose answers aren't those of what it was read from.

    Whatever its graph says, and however much of it is known: nobody gets another function.

    Raises:
        BadInput: they differ.
    """
    if not bool(torch.isfinite(theirs).all()):
        return  # who fills the network with these numbers refuses them
    largest = float(theirs.abs().max())
    off = float((ours - theirs).abs().max())
    if ours.shape != theirs.shape or not off <= _CLOSE * largest + 1e-6:
        raise BadInput(f"{where}: as a graph of known operations it gives other answers than by "
                       f"itself (off by {off:.3g}, and its largest is {largest:.3g}); this is a "
                       "fault of edgeres: please report it")  # fmt: skip


def turned(rows: int, columns: int) -> list[int]:
    """A table's numbers column by column: what a channel shuffle does with channels.

    Raises:
        ValueError: they are more than any network has.
    """
    if not 0 < rows * columns <= LARGEST:
        raise ValueError(f"{rows} x {columns} channels")
    return [row * columns + column for column in range(columns) for row in range(rows)]


def _fixed_point(
    channels: int, out: int, *, groups: int = 1, bias: bool = False
) -> dict[str, Value]:
    """The attributes of a 1x1 convolution that isn't trained."""
    return {"in": channels, "out": out, "kernel": (1, 1), "stride": (1, 1), "padding": (0, 0),
            "dilation": (1, 1), "groups": groups, "bias": bias, "trained": False}  # fmt: skip


def conv_attributes(
    weight: Tensor, *, bias: bool, stride: tuple[int, int], padding: tuple[int, int],
    dilation: tuple[int, int], groups: int,
) -> dict[str, Value]:  # fmt: skip
    """The attributes of a convolution that is trained."""
    out, width, *kernel = weight.shape
    return {"in": width * groups, "out": out, "kernel": (kernel[0], kernel[1]), "stride": stride,
            "padding": padding, "dilation": dilation, "groups": groups, "bias": bias,
            "trained": True}  # fmt: skip


def require_ends(where: str, inputs: int, outputs: int) -> None:
    """Refuse a network of anything else than one input and one output."""
    if (inputs, outputs) != (1, 1):
        said = f"{inputs} input{'s' * (inputs != 1)} and {outputs} output{'s' * (outputs != 1)}"
        raise BadInput(f"{where}: has {said}; an image classifier takes one image and gives one "
                       "vector")  # fmt: skip


def require_image(where: str, image: tuple[int, ...]) -> None:
    """Refuse a network of anything else than square images of 3 channels.

    Args:
        image: (N, C, H, W).
    """
    if len(image) != 4 or image[1] != 3 or image[2] != image[3] or not image[2]:
        raise BadInput(f"{where}: takes {as_shape(image)}; a network here takes square images of 3 "
                       "channels, (N, 3, H, H)")  # fmt: skip


def as_shape(sizes: tuple[int, ...]) -> str:
    """`(N, 3, 224, 224)`; 0 is an axis that isn't fixed."""
    return "(" + ", ".join(str(n) if n else "N" for n in sizes) + ")"


def _outer(name: str) -> list[str]:
    """`a.b.c` -> `a`, `a.b`."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _plain(name: str) -> str:
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".-")
    return kept[:100] or "network"


def _reaching(nodes: tuple[Node, ...], output: str) -> tuple[Node, ...]:
    """Those that the output is made of."""
    wanted = {output}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return tuple(node for node in nodes if node.name in wanted)
