"""Data that a tiny network has learned, and its teacher in every form that people have one in."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from edgeres.artifact import Artifact
from edgeres.models import resnet, spec
from edgeres.models.resnet import ResNet
from edgeres.types import Preprocess

PX, CLASSES = 16, 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four classes that need colour and brightness: red or blue, dark or bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = torch.randint(0, 60, (count, 3, PX, PX), generator=generator)
    images += (60 + 80 * (labels // 2)).view(-1, 1, 1, 1)
    images[torch.arange(count), (labels % 2) * 2] += 50
    return images.to(torch.uint8), labels


@pytest.fixture(scope="session")
def trained() -> ResNet:
    """A ResNet-8 that tells them apart, from images prepared as ImageNet's are."""
    from edgeres.recipe import TrainSection
    from edgeres.training import loop, objectives
    from edgeres.training.views import Labelled

    preprocess = Preprocess(PX, MEAN, STD)
    model = resnet.build(spec.parse("resnet8", CLASSES, preprocess))
    split = Labelled(*pictures(256, 0))
    settings = TrainSection(epochs=4, batch_size=16, learning_rate=0.02, augment=("flip",))
    with __import__("tempfile").TemporaryDirectory() as work:
        loop.fit(loop.Trainee.of(model, preprocess), split, split, settings,
                 objectives.supervised(preprocess, 0.0), seed=0, work=Path(work),
                 tick=lambda *_: None)  # fmt: skip
    return model.eval()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The data as the data stage leaves them."""
    from edgeres.datasets import Samples, _store

    folder = tmp_path_factory.mktemp("data")
    splits = {}
    for seed, split in enumerate(("train", "validation", "test")):
        images, labels = pictures(64, seed + 5)
        splits[split] = Samples(images.permute(0, 2, 3, 1).numpy(), labels.numpy())
    _store.write(folder, splits)
    facts = {"classes": list("abcd"), "size_px": PX}
    return Artifact("data", "-", "-", folder, {}, {}, facts, {}, 0.0)


def first(model: ResNet, images: torch.Tensor) -> torch.Tensor:
    """The answers that a teacher made of `model` must give."""
    from edgeres.training.inference import predict

    return predict(model, images, model.spec.preprocess)


def widened(model: ResNet, classes: int, rows: list[int]) -> ResNet:
    """The same network with more outputs, its own at `rows`."""
    wide = resnet.build(dataclasses.replace(model.spec, classes=classes), seed=1).eval()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}
    wide.load_state_dict({**wide.state_dict(), **state})
    with torch.no_grad():
        wide.fc.weight[rows], wide.fc.bias[rows] = model.fc.weight, model.fc.bias
    return wide


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A file server on the loopback: its address and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            tag = Path(self.translate_path(self.path)).with_suffix(".etag")
            if tag.exists():
                self.send_header("X-Linked-Etag", f'"{tag.read_text()}"')
            super().end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
