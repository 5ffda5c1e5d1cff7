"""Training on photographs that stay files: the same bits in any way, and none is lost silently."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from conftest import network
from photographs import CLASSES, cut, folder
from torch import Tensor

from edgeres.artifact import Artifact
from edgeres.compression.qat import QatModel
from edgeres.datasets import _decoder, _skipped
from edgeres.datasets._augment import augment, drawn_piece
from edgeres.datasets._decoding import box_of
from edgeres.datasets._draws import Draws
from edgeres.datasets._photographs import Photographs
from edgeres.errors import BadInput
from edgeres.recipe import DataSection, MixSection, TrainSection
from edgeres.stages import Context, _checkpoint, data
from edgeres.training import keeper, label_cache, loop, objectives
from edgeres.training.answers import as_teacher
from edgeres.training.feed import Feed
from edgeres.training.label_cache import LabelCache, Layout
from edgeres.training.views import Labelled, Raw, Views, ViewSettings

CPU = torch.device("cpu")
PIECES = ("resized-crop", "flip", "randaugment")


def splits(photos: Path, out: Path, **settings: Any) -> tuple[Labelled, Labelled, Labelled]:
    """Of the data artifact of a folder, at 24 px."""
    section = DataSection(
        **{"source": f"imagefolder:{photos}", "size": 24, "storage": "jpeg", "calibration": 9,
           "workers": 0} | settings
    )  # fmt: skip
    out.mkdir()
    facts = data.run(section, {}, out, Context(0, out, lambda *_: None))
    document = section.model_dump(mode="json")
    return _checkpoint.splits(Artifact("data", "-", "-", out, {}, document, facts, {}, 0.0))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder(tmp_path / "photos")


@pytest.fixture
def train(photos: Path, tmp_path: Path) -> Labelled:
    return splits(photos, tmp_path / "data")[0]


def by(train: Labelled, workers: int = 0, skip: bool = False, root: Path | None = None) -> Labelled:
    """The same split, decoded by so many processes."""
    images = train.images
    below = root or Path(os.fsdecode(images._folder))
    return replace(train, images=Photographs(below, images._listed, train.labels, images.rule,
                                             skip, workers))  # fmt: skip


def all_of(feed: Feed, order: list[Tensor], view: int) -> list[dict[str, Tensor]]:
    return [raw.tensors() for raw in feed.epoch(order, view)]


def same(first: list[dict[str, Tensor]], second: list[dict[str, Tensor]]) -> bool:
    return all(
        a.keys() == b.keys() and all(torch.equal(x, b[n]) for n, x in a.items())
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("mix", [None, MixSection(share=0.6)])
@pytest.mark.parametrize("augment", [PIECES, ("crop", "flip")])
def test_batches_are_the_same_bits_for_any_number_of_processes(
    mix: MixSection | None, augment: tuple[str, ...], train: Labelled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(_decoder, "_PART", 3)
    seen, n = ViewSettings(3, augment, mix), len(train.labels)
    plain = None
    for workers in (0, 1, 2):
        feed = Feed(Views(by(train, workers), seen), CPU)
        for view in (0, 5):
            order = list(torch.randperm(n, generator=torch.Generator().manual_seed(view)).split(7))
            found = all_of(feed, order, view)
            ahead = [raw.tensors() for raw in feed._ahead(order, view)]  # as for a GPU
            assert same(found, ahead)
            made = [feed.views.made(Raw(**raw)) for raw in found]
            alone = [feed.views.batch(torch.tensor([i]), view) for i in torch.cat(order).tolist()]
            for part in (0, 1):  # images, labels or shares
                whole = torch.cat([m[part] for m in made])
                assert torch.equal(whole, torch.cat([a[part] for a in alone]))
            if view == 5:
                plain = plain or found
                assert same(plain, found)
        feed.close()
    assert not [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def test_views_without_a_piece_are_those_of_stored_pixels(
    photos: Path, train: Labelled, tmp_path: Path
) -> None:
    decoded = splits(photos, tmp_path / "decoded", storage="decoded", workers=None)[0]
    seen = ViewSettings(1, ("crop", "flip", "trivialaugment"), MixSection(kind="cutmix"))
    order = list(torch.arange(len(train.labels)).split(10))
    mine, theirs = (all_of(Feed(Views(s, seen), CPU), order, 2) for s in (train, decoded))
    assert same(mine, theirs)


def test_pieces_are_those_that_the_numbers_say(train: Labelled) -> None:
    """Plain Pillow, from the photograph; what comes behind is drawn as it always is."""
    from PIL import Image

    views = Views(train, ViewSettings(7, ("resized-crop", "flip", "cutout")))
    chosen = torch.tensor([4, 11, 20])
    draws = Draws(7, 3, chosen)
    pieces = torch.stack(drawn_piece(draws), 1).tolist()
    cut = []
    for i, piece in zip(chosen.tolist(), pieces, strict=True):
        with Image.open(train.images.wanted([i])[0].file) as image:
            box = box_of(tuple(piece), *image.size)
            small = image.convert("RGB").resize((24, 24), Image.Resampling.BILINEAR, box=box)
        cut.append(np.asarray(small).transpose(2, 0, 1))
    images = augment(torch.from_numpy(np.stack(cut)), ("flip", "cutout"), draws)
    assert torch.equal(views.batch(chosen, 3)[0], images)


def damaged(train: Labelled, *numbers: int) -> list[str]:
    """Cut some samples' files; their names."""
    files = [Path(one.file) for one in train.images.wanted(numbers)]
    for file in files:
        cut(file)
    return [f"{file.parent.name}/{file.name}" for file in files]


def test_a_photograph_that_was_cut_meanwhile_stops_the_training(train: Labelled) -> None:
    seen, order = ViewSettings(0, PIECES), list(torch.arange(len(train.labels)).split(8))
    for workers in (0, 2):
        feed = Feed(Views(by(train, workers), seen), CPU)
        coming = feed.epoch(order, 0)
        next(coming)
        (name,) = damaged(train, 20)
        says = f"{name}: isn't the file that it was .*, or go on without it: data.on_error=skip"
        with pytest.raises(BadInput, match=says):
            list(coming)
        feed.close()


@pytest.mark.parametrize("mix", [None, MixSection()])
def test_skipped_it_is_the_next_of_its_class_named_once_and_counted(
    mix: MixSection | None, train: Labelled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, n = ViewSettings(0, PIECES, mix), len(train.labels)
    order = list(torch.randperm(n, generator=torch.Generator().manual_seed(4)).split(8))
    same_class = (train.labels == train.labels[5]).nonzero().ravel().tolist()
    last = same_class[-1]  # after which comes the first
    whole = {view: all_of(Feed(Views(train, seen), CPU), order, view) for view in range(3)}
    names = damaged(train, 5, 6, last)
    found = []
    for workers in (0, 2):
        work = tmp_path / f"work{workers}"
        work.mkdir()
        feed = Feed(Views(by(train, workers, skip=True), seen), CPU, work)
        found.append([all_of(feed, order, view) for view in range(3)])
        feed.close()
        said = capsys.readouterr().err
        for name in names:
            assert said.count(f"note: train/{name}: isn't the file that it was") == 1
        (note,) = _skipped.notes(work)
        assert note.startswith("3 training pictures were replaced by the next of the class: ")
        assert all(name in note for name in names)
        Feed(Views(by(train, 0, skip=True), seen), CPU, work)._skipped.add(f"train/{names[0]}", "")
        assert not capsys.readouterr().err  # a training that goes on knows it
    assert all(same(a, b) for a, b in zip(*found, strict=True))
    for view, epoch in enumerate(found[0]):
        for before, after in zip(whole[view], epoch, strict=True):
            assert torch.equal(before["labels"], after["labels"])
            bad = torch.isin(before["samples"], torch.tensor([5, 6, last]))
            if mix:
                bad |= torch.isin(before["partners"], torch.tensor([5, 6, last]))
            assert torch.equal(before["images"][~bad], after["images"][~bad])
            assert not torch.isin(after["samples"], torch.tensor([5, 6, last])).any()
            if not mix:
                into = dict(zip(before["samples"].tolist(), after["samples"].tolist(), strict=True))
                for sample, other in into.items():
                    behind = [i for i in same_class if i > sample and i not in (6, last)]
                    assert other == (sample if sample not in (5, 6, last) else
                                     [*behind, *same_class][0])  # fmt: skip


def test_a_name_that_cant_be_shown_is_named_once_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        skipped = _skipped.Skipped(tmp_path)
        for _ in range(2):
            skipped.add(os.fsdecode(b"train/cat/\xff\x1b[31m.jpg"), "is gone")
    shown = r"train/cat/\udcff\x1b[31m.jpg: is gone"
    assert capsys.readouterr().err.count(f"note: {shown}") == 1
    (note,) = _skipped.notes(tmp_path)
    assert note == f"1 training picture was replaced by the next of the class: {shown}"


def test_a_class_of_which_none_is_left_is_said(train: Labelled) -> None:
    damaged(train, *(train.labels == 1).nonzero().ravel().tolist())
    feed = Feed(Views(by(train, 0, skip=True), ViewSettings(0)), CPU)
    with pytest.raises(BadInput, match=r"none of the \d+ training pictures of class 1 can be used"):
        list(feed.epoch([torch.arange(len(train.labels))], 0))


@pytest.mark.parametrize("skip", [False, True])
def test_stored_answers_are_to_the_views_that_are_trained_on(
    skip: bool, train: Labelled, tmp_path: Path
) -> None:
    """Also where a photograph was replaced: its row has the answer to the one in its place."""
    seen, n = ViewSettings(2, PIECES, MixSection(share=0.5)), len(train.labels)
    teacher, layout = as_teacher(network("resnet8-w0.5", px=24)), Layout(2, n, 10, 10, seen)
    if skip:
        damaged(train, 7)
    stored = []
    for workers in (0, 2):
        (tmp_path / str(workers)).mkdir()
        views = Views(by(train, workers, skip), seen)
        label_cache.build(teacher, views, layout, tmp_path / str(workers), lambda *_: None)
        stored.append((tmp_path / str(workers) / "answers.npy").read_bytes())
    assert stored[0] == stored[1]
    split = replace(by(train, 0, skip), answers=LabelCache(tmp_path / "2"))
    split.answers.check(seen)
    views = Views(split, seen)
    for raw in Feed(views, CPU).epoch(list(torch.arange(n).split(9)), 1):
        answer = teacher.answer(views.made(raw)[0])
        torch.testing.assert_close(raw.answer, answer, atol=2e-2, rtol=1e-2)


SCRIPT = """
import os, pathlib, signal, sys

if __name__ == "__main__":
    import torch
    sys.path[:0] = sys.argv[4:]
    from edgeres.models import resnet, spec, weights
    from edgeres.recipe import TrainSection
    from edgeres.training import keeper, loop, objectives
    from test_photographs import splits

    torch.set_num_threads(1)
    keeper.EVERY_S = keeper._PATIENCE = 0  # after every step
    photos, work, kill_at = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    data = work.with_suffix(f".data{kill_at}")
    train, validation, _ = splits(photos, data, workers=1 if kill_at else 2)
    preprocess = spec.default_preprocess(24)
    model = resnet.build(spec.parse("resnet8-w0.5", 3, preprocess))

    def tick(done, total, note):
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = TrainSection(epochs=3, batch_size=8, learning_rate=0.05, ema=0.9, device="cpu",
                            augment=("resized-crop", "flip", "cutout"))
    loop.fit(loop.Trainee.of(model, preprocess), train, validation, settings,
             objectives.supervised(preprocess, 0.1), seed=1, work=work, tick=tick)
    weights.save(work, model)
"""


def test_killed_in_mid_epoch_it_ends_in_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    """With another number of processes before and after, too."""
    (tmp_path / "main.py").write_text(SCRIPT)

    def run(name: str, kill_at: int) -> int:
        (tmp_path / name).mkdir(exist_ok=True)
        paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
        return subprocess.run(
            [sys.executable, tmp_path / "main.py", photos, tmp_path / name, str(kill_at), *paths],
            check=False,
        ).returncode

    assert run("whole", 0) == 0
    assert run("killed", 6) == -signal.SIGKILL  # the second of four steps of epoch 2
    position = torch.load(tmp_path / "killed/resume.pt", weights_only=True)["position"]
    assert position["epoch"] == 1 and position["step"] >= 1
    assert run("killed", 0) == 0
    whole, killed = ((tmp_path / n / "weights.safetensors") for n in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


def test_qat_goes_on_in_mid_epoch_to_the_same_bits(
    train: Labelled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "EVERY_S", 0)
    monkeypatch.setattr(keeper, "_PATIENCE", 0)
    settings = TrainSection(epochs=2, batch_size=10, learning_rate=0.01, augment=PIECES)

    def trained(name: str, workers: int, kill_at: int = 0) -> str:
        def tick(done: int, total: int, note: str) -> None:
            if done == kill_at:
                raise KeyboardInterrupt

        model = network("resnet8-w0.5", classes=3, px=24)
        qat = QatModel(model, freeze_observers=0.5, freeze_batchnorm=0.5)
        qat.calibrate(train.images[:8])
        (tmp_path / name).mkdir(exist_ok=True)
        held_out = Labelled(train.images[:8], train.labels[:8])
        history = loop.fit(qat.trainee(), by(train, workers), held_out, settings,
                           objectives.supervised(model.spec.preprocess, 0.0), seed=0,
                           work=tmp_path / name, tick=tick)  # fmt: skip
        folded, scales = qat.finish()
        state = {name: value.tolist() for name, value in folded.state_dict().items()}
        return json.dumps([history, state, repr(scales)])

    whole = trained("whole", 0)
    with pytest.raises(KeyboardInterrupt):
        trained("killed", 2, kill_at=4)
    assert not [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
    assert trained("killed", 1) == whole


RECIPE = """
name: together
data: {{source: "imagefolder:{photos}", size: 24, storage: jpeg, calibration: 16,
       workers: {workers}}}
train: {{epochs: 2, batch_size: 12, augment: [resized-crop, flip], sync_batchnorm: true,
        learning_rate: 0.02, device: cpu}}
teacher: {{model: resnet8-w0.5}}
quantize: {{method: qat, train: {{epochs: 1}}}}
"""


def edgeres(at: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeres", *arguments], cwd=at, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, timeout=500, **more,
    )  # fmt: skip


def losses(artifact: Path) -> list[float]:
    rows = (artifact / "history.jsonl").read_text().splitlines()
    return [json.loads(row)["loss"] for row in rows]


def test_two_processes_learn_like_one_float_and_qat(photos: Path, tmp_path: Path) -> None:
    """The same loss curves, with batch norm over both, but for sums in another order: to 1e-4, and
    to 1e-3 where they also decide which way a value is rounded."""
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(photos=photos, workers="null"))
    found = []
    for procs in (1, 2):
        done = edgeres(tmp_path, "run", "recipe.yaml", "--procs", str(procs), "--runs",
                       f"runs{procs}", "--json")  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(json.loads(done.stdout))
    for stage, epochs in (("teacher", 2), ("quantize", 1)):
        one, two = (losses(tmp_path / r["artifacts"][stage]["path"]) for r in found)
        assert len(one) == epochs
        assert two == pytest.approx(one, rel=1e-4 if stage == "teacher" else 1e-3)
    data_of = [result["artifacts"]["data"]["digest"] for result in found]
    assert data_of[0] == data_of[1]


def test_one_that_is_damaged_in_the_third_epoch(train: Labelled, tmp_path: Path) -> None:
    """Stopped, or gone on with to the end; until then nothing of it is different."""
    settings = TrainSection(epochs=4, batch_size=10, learning_rate=0.01, augment=PIECES)
    held_out, steps = Labelled(train.images[:8], train.labels[:8]), -(-len(train.labels) // 10)
    file = Path(train.images.wanted([9])[0].file)
    content = file.read_bytes()

    def trained(name: str, skip: bool, spoil: bool = True) -> list[float]:
        def tick(done: int, total: int, note: str) -> None:
            if done == 2 * steps and spoil:
                cut(file)

        file.write_bytes(content)
        (tmp_path / name).mkdir()
        model = network("resnet8-w0.5", classes=3, px=24)
        rows = loop.fit(loop.Trainee.of(model, model.spec.preprocess), by(train, 1, skip),
                        held_out, settings, objectives.supervised(model.spec.preprocess, 0.0),
                        seed=0, work=tmp_path / name, tick=tick)  # fmt: skip
        return [row["loss"] for row in rows]

    whole = trained("whole", True, spoil=False)
    assert not _skipped.notes(tmp_path / "whole")
    with pytest.raises(BadInput, match=f"{file.name}: isn't the file that it was"):
        trained("stop", False)
    skipped = trained("skip", True)
    assert skipped[:2] == whole[:2] and skipped[2] != whole[2] and len(skipped) == 4
    (note,) = _skipped.notes(tmp_path / "skip")
    assert note.startswith("1 training picture was replaced by the next of the class: train/")


def test_a_run_stops_and_names_the_file_or_skips_it_and_says_so(
    photos: Path, tmp_path: Path
) -> None:
    """The other answer to a damaged picture makes no other data."""
    text = RECIPE.format(photos=photos, workers=1) + "report: {}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    for name in CLASSES:  # one of which is neither a validation image nor one that calibrates
        cut(photos / "train" / name / "02.jpg")
    skip = ("--set", "data.calibration=1", "--set", "data.validation=0.01")
    stopped = edgeres(tmp_path, "run", "recipe.yaml", *skip)
    assert stopped.returncode == 2, stopped.stderr
    assert re.search(r"edgeres: .*02\.jpg: can't be decoded \(.*truncated.*on_error=skip",
                     stopped.stderr)  # fmt: skip
    done = edgeres(tmp_path, "run", "recipe.yaml", *skip, "--set", "data.on_error=skip", "--json")
    assert done.returncode == 0, done.stderr
    assert re.search(r"data +cached", done.stderr)
    assert len(re.findall(r"^note: train/\w+/02\.jpg: can't be decoded", done.stderr, re.M)) == 6
    report = json.loads((tmp_path / json.loads(done.stdout)["run"] / "report.json").read_text())
    notes = {row["step"]: row["note"] for row in report["notes"] if "replaced" in row["note"]}
    assert notes.keys() == {"teacher", "quantize"}
    assert notes["teacher"].startswith("3 training pictures were replaced by the next of the class")
    assert str(photos) not in json.dumps(notes)


@pytest.mark.parametrize("procs", ["1", "2"])
def test_ctrl_c_ends_every_process(procs: str, photos: Path, tmp_path: Path) -> None:
    text = RECIPE.format(photos=photos, workers=2).replace("epochs: 2", "epochs: 9000")
    (tmp_path / "recipe.yaml").write_text(text)
    with subprocess.Popen(
        [sys.executable, "-m", "edgeres", "run", "recipe.yaml", "--procs", procs], cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        for line in running.stderr:
            if "teacher" in line:
                break
        every: list[psutil.Process] = []
        for _ in range(600):
            time.sleep(0.1)
            every = psutil.Process(running.pid).children(recursive=True)
            decoding = [p for p in every if "--multiprocessing-fork" in p.cmdline()]
            if len(decoding) == 2 * int(procs):
                break
        assert len(decoding) == 2 * int(procs)
        time.sleep(1.0)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(60) == 130
        assert not psutil.wait_procs(every, 20)[1]
        assert "Traceback" not in running.stderr.read()


def test_moved_photographs_are_the_same_data(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(photos=photos, workers=0))
    moved = photos.rename(tmp_path / "elsewhere")
    until = ("--until", "teacher", "--json")
    gone = edgeres(tmp_path, "run", "recipe.yaml", *until)
    assert gone.returncode == 2 and "Traceback" not in gone.stderr
    text = RECIPE.format(photos=moved, workers=0)
    (tmp_path / "recipe.yaml").write_text(text.replace("epochs: 2", "epochs: 1"))
    first = edgeres(tmp_path, "run", "recipe.yaml", *until)
    assert first.returncode == 0, first.stderr
    moved.rename(photos)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(photos=photos, workers=2))
    second = edgeres(tmp_path, "run", "recipe.yaml", *until)
    assert second.returncode == 0, second.stderr
    assert re.search(r"data +cached", second.stderr)
    assert tuple(json.loads(second.stdout)["artifacts"]["data"]["facts"]["classes"]) == CLASSES
