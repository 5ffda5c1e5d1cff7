"""The one quantized graph: folded weights and a `ScaleTable` in, a PT2E graph of Q/DQ nodes out.

Quantization-aware training and post-training quantization both end in plain tensors and a table of
scales; this module rebuilds from them the graph that every int8 file is written from (`integers`
has it in whole numbers, to compare files with). Nothing is stored as a pickled program, and a
rebuilt graph is the same every time.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.fx import GraphModule
from torchao.quantization.pt2e.observer import ObserverBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from edgeres.compression import biases, portable, rounding
from edgeres.compression.quantizer import CLAMPS, RELU, Layer, ResidualQuantizer, layers
from edgeres.compression.rounding import Moments
from edgeres.errors import BadInput
from edgeres.models.modules import Classifier, Spec, module_of
from edgeres.network.graph import Network, picks, united
from edgeres.types import QuantParams, ScaleTable

WEIGHT_RANGE = (-127, 127)
WEIGHT_RANGES = {"int8": WEIGHT_RANGE, "int4": (-7, 7)}
ACTIVATION_RANGE = (-128, 127)
_RANGES = {"int8": ACTIVATION_RANGE, "int16": (-32768, 32767)}
SHARES = tuple(1 - n / 20 for n in range(11))  # of the largest weight, to clip 4-bit codes at
SMALLEST_SCALE = 2.0**-24  # of float16; keeps an all-zero channel's scale positive


def export_program(model: Classifier, batch: int | None = None) -> torch.export.ExportedProgram:
    """`torch.export` of a network in its present mode.

    Args:
        batch: a fixed batch size, or None for any batch size from 1 up.
    """
    px = model.spec.preprocess.size_px
    shapes = None if batch else ({0: torch.export.Dim("batch", min=1, max=65536)},)
    example = torch.zeros(batch or 2, 3, px, px, dtype=next(model.parameters()).dtype)
    return torch.export.export(model, (example,), dynamic_shapes=shapes)


def quantized_graph(model: Classifier, scales: ScaleTable, *, fold_weights: bool) -> GraphModule:
    """Build the graph whose output is what the integer files must reproduce.

    Args:
        model: batch norm folded, eval mode.
        scales: one entry per tensor that `quantizer.layers` names, plus `input` and weights; what
            has none stays float.
        fold_weights: store weights as int8 constants (True; ONNX, Core ML, running), or keep
            float weights with a quantize node in front (False; what LiteRT's converter reads).

    Returns:
        A graph module of (N, 3, H, W) float32 -> (N, classes) float32, any N.

    Raises:
        BadInput: a bias doesn't fit into int32 with these scales.
    """
    with torch.no_grad():
        graph = export_program(model.eval()).module()
        _require_biases_fit(graph, model, scales)
        _end_at_codes(graph, scales)
        _keep_apart(graph, scales)
        quantizer = ResidualQuantizer(
            lambda name: (
                _spec(scales[name], *_RANGES[scales[name].dtype]) if name in scales else None
            ),
            lambda name: (
                _spec(scales[name], *WEIGHT_RANGES[scales[name].dtype]) if name in scales else None
            ),
        )
        prepared = prepare_pt2e(graph, quantizer)
        converted: GraphModule = convert_pt2e(prepared, fold_quantize=fold_weights)
    return converted


def _require_biases_fit(graph: GraphModule, model: Classifier, scales: ScaleTable) -> None:
    state = model.state_dict()
    for layer in layers(graph):
        bias, params = state.get(f"{layer.name}.bias"), scales.get(f"{layer.name}.weight")
        source = scales.get(layer.source)
        if bias is not None and params and source:
            steps = torch.tensor(params.scale, dtype=torch.float64) * source.scale[0]
            biases.require_fit(layer.name, bias, steps)


def _end_at_codes(graph: GraphModule, scales: ScaleTable) -> None:
    """A ReLU6 whose output is quantized is a ReLU: no code stands for more than 6.

    Its range was observed behind it. So every format has the same operation, and none rounds 6.
    The same holds for other ends.

    Raises:
        BadInput: codes go on beyond its end, as the scale is another value's, too.
    """
    for layer in layers(graph):
        if layer.last.target in CLAMPS and layer.name in scales:
            if ended(scales[layer.name], _end(layer)) != scales[layer.name]:
                raise BadInput(
                    f"'{layer.name}' ends at {_end(layer):g}, and its codes beyond that: it has the"
                    " scale of something larger, with which it is added or concatenated; quantize "
                    "again, with quantize.scheme=w8a8, or put a 1x1 convolution between the two"
                )
            layer.last.target = RELU[0]
            layer.last.args = layer.last.args[:1]
    graph.recompile()


def _keep_apart(graph: GraphModule, scales: ScaleTable) -> None:
    """Put two negations behind each float layer whose output is quantized.

    LiteRT's converter and onnxruntime give a layer between quantized tensors int8 weights of their
    own, without being asked. They can't quantize a negation, and two of them are exact.
    """
    for layer in list(layers(graph)):
        if layer.weighted and layer.name in scales and f"{layer.name}.weight" not in scales:
            value = layer.last
            users = list(value.users)
            for _ in range(2):
                with graph.graph.inserting_after(value):
                    new = graph.graph.call_function(torch.ops.aten.neg.default, (value,))
                    new.meta = dict(layer.last.meta)
                value = new
            for user in users:
                user.replace_input_with(layer.last, value)
    graph.recompile()


def ended(params: QuantParams, end: float) -> QuantParams:
    """With a scale whose codes end where values are cut off, if these go on far beyond.

    Scales are rounded up, and grow a little (`ties`).
    """
    (scale,), (zero,) = params.scale, params.zero_point
    most = end / max(1, _RANGES[params.dtype][1] - zero)
    if scale <= most * (1 + 1 / 32):
        return params
    return replace(params, scale=(storable(torch.tensor(most)).item(),))


def ends(spec: Spec) -> dict[str, float]:
    """Where the layers end that a ReLU6 or the like is behind."""
    return {la.name: _end(la) for la in layers(bare_graph(spec)) if la.last.target in CLAMPS}


def _end(layer: Layer) -> float:
    end = layer.last.args[2] if len(layer.last.args) > 2 else 1.0
    assert isinstance(end, int | float)
    return float(end)


@dataclass(frozen=True)
class Wire:
    """One layer of a network's quantized graph, without the graph (see `quantizer.Layer`)."""

    name: str
    kind: str
    sources: tuple[str, ...]

    @property
    def source(self) -> str:
        """Key of the tensor that it reads (the first of several)."""
        return self.sources[0]


@functools.lru_cache(maxsize=32)
def wiring(spec: Spec) -> tuple[Wire, ...]:
    """The layers of a folded network in execution order."""
    return tuple(Wire(la.name, la.kind, la.sources) for la in layers(bare_graph(spec)))


@functools.lru_cache(maxsize=32)
def concatenated(spec: Spec) -> tuple[frozenset[str], ...]:
    """The tensors that concatenations join, or whose channels a fixed convolution picks, in sets:
    each has one scale, so that only codes move.

    Raises:
        BadInput: something whose scale is fixed is among them.
    """
    wires = wiring(spec)
    fixed = {"input", *(w.name for w in wires if w.kind == "sigmoid")}
    picked = {n.name for n in spec.nodes if picks(n)} if isinstance(spec, Network) else set()
    joined = united((w.name, *w.sources) for w in wires if w.kind == "concat"
                    or (w.name in picked and w.source not in fixed))  # fmt: skip
    for name in sorted(fixed.intersection(*[frozenset().union(*joined)])):
        raise BadInput(
            f"{spec.name}: '{name}' goes into a concatenation, whose parts have one scale; its own "
            "is fixed: put a 1x1 convolution between the two"
        )
    return joined


@functools.lru_cache(maxsize=8)
def bare_graph(spec: Spec) -> GraphModule:
    """The exported program of a network in evaluation mode, without weights (they are "meta").

    Tracing a deep network takes seconds and doesn't depend on its weights.
    """
    with torch.device("meta"):
        graph: GraphModule = export_program(module_of(spec).eval()).module()
    return graph


def weight_scales(
    model: Classifier, kept: Collection[str] = (), four: Collection[str] = ()
) -> ScaleTable:
    """Symmetric per-output-channel scales of folded weights, but for layers `kept` float.

    Args:
        four: layers whose weights have 4 bits.
    """
    table: ScaleTable = {}
    for name, weight in model.state_dict().items():
        layer = name.removesuffix(".weight")
        if name != layer and layer not in kept:
            kind = "int4" if layer in four else "int8"
            scale = weight_scale(weight, kind=kind)
            table[name] = QuantParams(tuple(scale.tolist()), (0,) * len(scale), kind, 0)
    return table


def weight_scale(weight: Tensor, factor: Tensor | None = None, kind: str = "int8") -> Tensor:
    """(O, ...) -> (O,): max |w| / 127, made storable.

    Of 4 bits, max |w| / 7, or less where clipping the largest weights makes the squared error
    least. A channel of zeros and one power of two gets a 64th of that (a quarter), so that its
    codes are exact: the fixed weights of a shortcut of option A (1) and of an average pool (1/4).

    Args:
        factor: (O,), positive, by which each channel is yet to be multiplied.
        kind: of the codes, "int8" or "int4".
    """
    most = WEIGHT_RANGES[kind][1]
    values, rest = weight.detach(), tuple(range(1, weight.ndim))
    # An infinity norm, which torch computes seven times slower in channels-last memory.
    peaks = torch.maximum(values.amax(rest), -values.amin(rest))
    ends = peaks if kind == "int8" else peaks * clipped(values, peaks, most)
    if factor is not None:
        return storable(ends * factor / most)
    scale = storable(ends / most)
    power = (peaks.frexp().mantissa == 0.5) & (peaks >= 2.0**-8)
    if power.device.type != "cpu" or power.any():  # where to ask is to wait
        sizes = weight.detach().flatten(1).abs()
        fixed = power & (sizes.sum(1) == sizes.count_nonzero(1) * peaks)
        scale = torch.where(fixed, peaks * (2.0 / (most + 1)), scale)
    return scale


def clipped(weight: Tensor, peaks: Tensor, most: int) -> Tensor:
    """The share of each channel's peak to clip at, for the least squared error: (O,)."""
    best = torch.ones_like(peaks)
    least = torch.full_like(peaks, torch.inf)
    for share in SHARES:
        column = (peaks * (share / most)).clamp_min(SMALLEST_SCALE)
        column = column.view(-1, *[1] * (weight.ndim - 1))
        codes = (weight / column).round_().clamp_(-most, most)
        error = codes.mul_(column).sub_(weight).square_().flatten(1).sum(1)
        best = torch.where(error < least, share, best)
        least = torch.minimum(least, error)
    return best


def storable(scale: Tensor) -> Tensor:
    """Positive scales rounded up to float16 numbers.

    Core ML stores no wider ones, so that with these every format holds the same numbers; upwards,
    because then no value is clipped that wasn't before.
    """
    half = scale.clamp_min(SMALLEST_SCALE).half()
    below = half.float() < scale * (1 - 1e-6)  # more than the noise of computing the scale
    bits = half.view(torch.int16) + below  # those of positive halves are in the halves' order
    return bits.to(torch.int16).view(torch.half).float()


@torch.no_grad()
def snap(
    model: Classifier, scales: ScaleTable, moments: Moments | None = None, scheme: str = "w8a8"
) -> None:
    """Round folded weights to their int8 grid and biases to the int32 one, in place.

    Weights go to the nearest code, or, with the moments of their layers' inputs, to those that
    change the layers' outputs least (`rounding`).

    On its grid a weight gets the same code from every converter, whichever way it rounds halves,
    and a bias loses nothing when a runtime stores it as int32 (of step input scale * weight scale).
    Scales that an operation prescribes are put into the table, and weight scales with which biases
    fit and are the same in every format (`biases`), or with which all kernels round alike
    (`portable`, if that is the scheme).

    Raises:
        BadInput: a bias that fits into int32 with no storable scale.
    """
    state = model.state_dict()
    for layer in layers(export_program(model.eval()).module()):
        if layer.name in scales:
            scales[layer.name] = layer.fixed(scales[layer.name].dtype) or scales[layer.name]
        if f"{layer.name}.weight" not in scales:
            continue
        weight, bias = state[f"{layer.name}.weight"], state.get(f"{layer.name}.bias")
        params, source = scales[f"{layer.name}.weight"], scales.get(layer.source)
        moment = (moments or {}).get(layer.name)
        if scheme == portable.SCHEME and source and layer.name in scales:
            ends = source.scale[0], scales[layer.name].scale[0]
            portable.require_fit(layer.name, weight, *ends)
            codes, steps, sums = portable.fitted(weight, bias, *ends, moment)
            scales[f"{layer.name}.weight"] = replace(params, scale=tuple(steps.tolist()))
            weight.copy_(codes * steps.view(-1, *[1] * (weight.ndim - 1)))
            if bias is not None and sums is not None:
                bias.copy_(sums * steps * source.scale[0])
            continue
        steps, ends = torch.tensor(params.scale, dtype=torch.float64), WEIGHT_RANGES[params.dtype]
        if moment is not None and params.dtype == "int4":
            steps = _finest(weight, steps, moment, ends)
        if bias is not None and source:
            steps = storable(biases.roomy(weight, bias, steps, source)).double()
            biases.require_fit(layer.name, bias, steps * source.scale[0])
        if bias is not None and source and source.dtype == "int8":  # 16 bits need a finer bias
            written = scales.get(layer.name)
            written = written if written and written.dtype == "int8" else None
            found, steps = biases.shared(weight, bias, steps, source.scale[0], written)
            bias.copy_(found)
        scales[f"{layer.name}.weight"] = replace(params, scale=tuple(steps.tolist()))
        column = steps.view(-1, *[1] * (weight.ndim - 1))
        if moment is not None:
            codes = rounding.rounded(weight, steps, moment, *ends)
        else:
            codes = (weight / column).round().clamp(*ends)
        weight.copy_(codes * column)
        if bias is not None and source:
            steps *= source.scale[0]
            bias.copy_((bias / steps).round() * steps)


def _finest(weight: Tensor, scale: Tensor, moment: Tensor, ends: tuple[int, int]) -> Tensor:
    """Scales of 4-bit codes with which the layer's outputs change least: (O,) float64.

    A channel of zeros and one size keeps its own.
    """
    sizes = weight.flatten(1).abs()
    peaks = sizes.amax(1)
    plain = ((sizes == 0) | (sizes == peaks[:, None])).all(1)
    found, least = scale, torch.full_like(scale, torch.inf)
    for share in SHARES:
        steps = torch.where(plain, scale, storable(peaks * share / ends[1]).double())
        codes = rounding.rounded(weight, steps, moment, *ends)
        error = weight - codes * steps.view(-1, *[1] * (weight.ndim - 1))
        cost = rounding.loss(error, moment)
        found = torch.where(cost < least, steps, found)
        least = torch.minimum(least, cost)
    return found


class _Fixed(ObserverBase):
    """An observer that has already made up its mind."""

    def __init__(
        self,
        scale: Tensor,
        zero_point: Tensor,
        dtype: torch.dtype,
        qscheme: torch.qscheme,
        quant_min: int,
        quant_max: int,
        **_: object,
    ):
        super().__init__(dtype=dtype, is_dynamic=False)
        self.scale, self.zero_point, self.qscheme = scale, zero_point, qscheme
        self.quant_min, self.quant_max = quant_min, quant_max
        self.ch_axis, self.eps = 0, SMALLEST_SCALE

    def forward(self, x: Tensor) -> Tensor:
        return x

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        return self.scale, self.zero_point


def _spec(params: QuantParams, low: int, high: int) -> QuantizationSpec:
    per_channel = params.axis is not None
    scheme = torch.per_channel_symmetric if per_channel else torch.per_tensor_affine
    observer = _Fixed.with_args(
        scale=torch.tensor(params.scale, dtype=torch.float32),
        zero_point=torch.tensor(params.zero_point, dtype=torch.int64),
    )
    dtype = torch.int8 if params.dtype == "int4" else getattr(torch, params.dtype)
    return QuantizationSpec(dtype, observer, low, high, scheme, params.axis, False)
