"""Quantization-aware training: a float network in, folded weights and a trained `ScaleTable` out.

What is trained is the network's own graph with fake quantization on the tensors that our quantizer
names (`qat_graph`), so that its answers in evaluation are those of the quantized graph. The
training itself is the one loop of `edgeres.training`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from edgeres.compression import bits, exclusions, portable, ties
from edgeres.compression.fake_quant import Range
from edgeres.compression.graph import concatenated, ended, ends, snap, weight_scales
from edgeres.compression.qat_graph import QatNetwork
from edgeres.datasets._store import reading
from edgeres.disk import storage_errors, write_whole
from edgeres.models.modules import Classifier, fold_batchnorm
from edgeres.training.inference import in_layout, narrow, prepared
from edgeres.training.loop import Trainee
from edgeres.types import ScaleTable

_BATCH = 64


class QatModel:
    """A network prepared for QAT; `start` or `calibrate` its ranges before training.

    Args:
        model: batch norm not folded; its weights are the starting point.
        freeze_observers, freeze_batchnorm: share of the epochs after which ranges, and then batch
            statistics, stay fixed (Krishnamoorthi 2018, section 3.2).
        scheme: how activations are quantized, see `fake_quant.activation_params`.
        exclude: regular expressions of layers that stay float, see `exclusions`.
        learned_steps: activations' step sizes are parameters (Esser et al. 2020) in place of
            running ranges.
        four: scheme w4a8: the layers whose weights have 4 bits; None: as `bits.four` has them.

    Raises:
        BadInput: an expression in `exclude` that fits no layer.
    """

    def __init__(
        self, model: Classifier, *, freeze_observers: float, freeze_batchnorm: float,
        scheme: str = "w8a8", exclude: Sequence[str] = (), learned_steps: bool = False,
        four: Collection[str] | None = None,
    ):  # fmt: skip
        self.model = model = portable.sums_only(model) if scheme == portable.SCHEME else model
        self.four = bits.four(model) if scheme == bits.SCHEME and four is None else four or ()
        self.scheme = scheme = bits.of_activations(scheme)
        self.freeze_observers, self.freeze_batchnorm = freeze_observers, freeze_batchnorm
        self.kept = exclusions.kept_float(model, exclude)
        exact = model.spec.preprocess.input_quantization() if scheme != "w8a16" else None
        if exact and scheme == "w8a8-symmetric" and exact.zero_point != (0,):
            exact = None

        def make(tensor: str, relu: bool) -> Range:
            one = Range(tensor, scheme, relu=relu, learned=learned_steps and tensor != "input")
            one.fixed = exact if tensor == "input" else None
            return one

        self._best: Path | None = None
        self.network = QatNetwork(model, self.kept, make, self.four)
        for names in concatenated(model.spec):
            joined = tuple(one for one in self.network.ranges if one.tensor in names)
            for one in joined:
                one.join(joined)
        in_layout(self.network, model.spec.preprocess)

    def start(self, scales: ScaleTable) -> None:
        """Begin with the ranges of a table, e.g. that of post-training quantization."""
        for one in self.network.ranges:
            one.start(scales[one.tensor])
            if one.tensor == "input":  # images stay as they are
                one.fixed = scales["input"]
        self._untie()

    def calibrate(self, images: Tensor) -> None:
        """Begin with the ranges of real activations: uint8 images (N, 3, H, W), 64 at a time."""
        self.network.folded = True
        for one in self.network.ranges:
            one.look(True)
        with torch.no_grad():
            for part in images.split(_BATCH):
                self.network(prepared(part, self.model.spec.preprocess))
        for one in self.network.ranges:
            one.look(False)
        self._untie()

    def _untie(self) -> None:
        """Ranges around adds and products keep to a grid from now on (`ties`)."""
        for chain in ties.chains(self.model.spec):
            found = [one for one in self.network.ranges if one.tensor in chain.names]
            for one in found:
                one.untie(None, product=False)
            if found and found[0].params().dtype == "int8":
                step = ties.grid(one.params().scale[0] for one in found)
                for one in found:
                    one.untie(step, chain.product)

    def trainee(self, best: Path | None = None) -> Trainee:
        """What the training loop trains.

        Args:
            best: where to keep the state of the epoch with the best validation accuracy; `finish`
                takes it from there.
        """
        self._best = best
        return Trainee(
            self.network, self.model.spec.preprocess, self._mode, self._start_epoch,
            self._start_step, self._end_epoch, narrow=narrow(self.model),
        )  # fmt: skip

    def finish(self) -> tuple[Classifier, ScaleTable]:
        """The folded network, its weights on the int8 grid, and its scales as trained."""
        if self._best is not None and self._best.exists():
            with reading(self._best):
                state = load_file(self._best)
            self.network.load_state_dict(state)
        if self.scheme == portable.SCHEME:  # ranges may have left their grid
            self._untie()
        trained = self.network.program.state_dict()
        self.model.load_state_dict({k: trained[k] for k in self.model.state_dict()})
        folded = fold_batchnorm(self.model.eval())
        scales = weight_scales(folded, self.kept.layers, self.four)
        cut = ends(self.model.spec)  # which learned steps may have left
        scales |= {one.tensor: ended(one.params(), cut.get(one.tensor, math.inf))
                   for one in self.network.ranges}  # fmt: skip
        snap(folded, scales, scheme=self.scheme)
        return folded, scales

    def _end_epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """Keep the last epoch if none before it was better."""
        accuracies = [row["validation_top1"] for row in history]
        if self._best is not None and accuracies[-1] >= max(accuracies):
            with storage_errors(self._best):
                state = {k: v.contiguous() for k, v in self.network.state_dict().items()}
                write_whole(self._best, save(state))

    def _mode(self, training: bool) -> None:
        self.network.folded = not training
        for one in self.network.ranges:
            one.observe(training)

    def _start_step(self) -> tuple[bool, bool]:
        """Whether batch norm is folded, and whether ranges look, in this step."""
        looks = [one.start_step() for one in self.network.ranges]
        return self.network.folded, any(looks)

    def _start_epoch(self, epoch: int, epochs: int) -> None:
        if epoch >= self.freeze_observers * epochs:
            for one in self.network.ranges:
                one.observe(False)
        if epoch >= self.freeze_batchnorm * epochs:
            self.network.folded = True
