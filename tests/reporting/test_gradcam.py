"""Grad-CAM: the int8 network is run exactly, and the maps point to what decides."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from conftest import PX, images
from network.nets import Mobile, of
from PIL import Image

from edgeres.compression import ptq
from edgeres.compression.graph import quantized_graph
from edgeres.models import resnet, spec
from edgeres.models.resnet import ResNet
from edgeres.network.from_torch import from_module
from edgeres.reporting import gradcam
from edgeres.training.inference import predict, prepared


def test_the_quantized_graph_runs_exactly_and_has_gradients(quantized: tuple) -> None:
    _, folded, scales = quantized
    graph = quantized_graph(folded, scales, fold_weights=True)
    x = prepared(images(4), folded.spec.preprocess).contiguous()
    with torch.no_grad():
        expected = graph(x)
    logits, pooled = gradcam.of_graph(graph)(x.clone())
    assert torch.equal(logits, expected)
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), pooled)
    assert torch.equal(gradient.amin((2, 3)), gradient.amax((2, 3)))  # a pool spreads it evenly
    assert gradient.abs().sum() > 0


def test_maps_of_float_and_int8_are_nearly_the_same(quantized: tuple) -> None:
    model, folded, scales = quantized
    x = prepared(images(16, seed=3), folded.spec.preprocess).contiguous()
    graph = gradcam.of_graph(quantized_graph(folded, scales, fold_weights=True))
    classes = model(x).argmax(1)
    one = gradcam.maps(gradcam.of_network(model), x.clone(), classes).flatten(1)
    two = gradcam.maps(graph, x.clone(), classes).flatten(1)
    assert one.min() >= 0 and one.max() == 1
    alike = torch.nn.functional.cosine_similarity(one, two)
    assert alike.median() > 0.9
    other = gradcam.maps(gradcam.of_network(model), x.clone(), (classes + 1) % 10).flatten(1)
    assert torch.nn.functional.cosine_similarity(one, other).median() < alike.median()


def test_a_map_is_bright_where_the_answer_comes_from() -> None:
    """Pooled features by hand: the class is told by one channel, lit in one corner."""

    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.zeros(1, 2, 4, 4)
        features[0, 0, 0, 0], features[0, 1, 3, 3] = 5.0, 7.0
        features.requires_grad_()
        return features.mean((2, 3)) @ torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), features

    cam = gradcam.maps(forward, torch.zeros(1, 3, 16, 16), torch.tensor([0]))[0]
    assert cam[:2, :2].min() == 1 and cam[8:].max() == 0


def test_only_images_with_different_answers_are_shown(quantized: tuple) -> None:
    model, folded, scales = quantized
    pictures = images(12, seed=5)
    graph = quantized_graph(folded, scales, fold_weights=True)
    answers = [predict(n, pictures, folded.spec.preprocess).numpy() for n in (model, graph)]
    changed = answers[1].copy()
    for i in (2, 7):
        changed[i, answers[0][i].argmin()] = changed[i].max() + 3

    def compare(second: np.ndarray) -> dict:
        pair: list[tuple[gradcam.Forward, ResNet]] = [
            (gradcam.of_network(model), model), (gradcam.of_graph(graph), folded)
        ]  # fmt: skip
        return gradcam.compared(*pair, [answers[0], second], pictures, [0] * 12)

    found = compare(changed)
    assert (found["n"], found["differ"]) == (12, 2)
    assert {s["index"] for s in found["samples"]} == {2, 7}
    assert all(s["first"]["class"] != s["second"]["class"] for s in found["samples"])
    assert found == compare(changed)
    assert compare(answers[0])["samples"] == []
    kind, _, data = found["samples"][0]["second"]["map"].partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:image/png;base64"
    assert picture.size == (112, 112) and PX < 112


def test_maps_that_end_with_one_pixel_are_drawn() -> None:
    """A network with the large stem on small images, and somebody's own."""
    whole = resnet.build(spec.parse("resnet10-w0.25", 4, spec.default_preprocess(16), "imagenet"))
    for model in (whole.eval(), from_module(of(Mobile), 4).module):
        px = model.spec.preprocess.size_px
        folded, scales = ptq.quantize(model, images(8, px))
        x = prepared(images(2, px), model.spec.preprocess).contiguous()
        for forward in (
            gradcam.of_network(model),
            gradcam.of_graph(quantized_graph(folded, scales, fold_weights=True)),
        ):
            drawn = gradcam.maps(forward, x.clone(), torch.tensor([0, 1]))
            assert drawn.shape == (2, px, px) and drawn.isfinite().all()
