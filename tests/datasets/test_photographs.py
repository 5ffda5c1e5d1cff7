"""Photographs that stay files: which pixels are seen of them, and what is refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
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
from photographs import cut, folder
from PIL import Image, ImageOps

from edgeres import recipe
from edgeres.artifact import Artifact
from edgeres.datasets import _decoder, _store
from edgeres.datasets._augment import augment
from edgeres.datasets._decoder import Decoder
from edgeres.datasets._decoding import Wanted, box_of, decode_listed
from edgeres.datasets._draws import Draws
from edgeres.datasets._photographs import Photographs
from edgeres.errors import BadInput, StorageError
from edgeres.recipe import DataSection
from edgeres.stages import Context, _checkpoint, data
from edgeres.types import Resize

RULE = Resize.of(32)
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos") / "p")


def made(photos: Path, out: Path, **settings: Any) -> Artifact:
    """The data artifact of a folder."""
    section = DataSection(
        **{"source": f"imagefolder:{photos}", "size": 32, "storage": "jpeg", "calibration": 9}
        | settings
    )
    out.mkdir()
    facts = data.run(section, {}, out, Context(0, out, lambda *_: None))
    return Artifact("data", "-", "-", out, {}, section.model_dump(mode="json"), facts, {}, 0.0)


def wanted(file: Path, piece: tuple[float, float, float, float] | None = None) -> Wanted:
    content = file.read_bytes()
    return Wanted(str(file), len(content), hashlib.sha256(content).digest(), piece)


def test_without_a_piece_they_are_the_pixels_that_would_be_stored(
    photos: Path, tmp_path: Path
) -> None:
    listed = _checkpoint.splits(made(photos, tmp_path / "jpeg"))
    decoded = _checkpoint.splits(made(photos, tmp_path / "decoded", storage="decoded"))
    for mine, theirs in zip(listed, decoded, strict=True):
        assert torch.equal(mine.labels, theirs.labels)
        assert mine.images.shape == theirs.images.shape
        assert torch.equal(mine.images[:], theirs.images[:])
    assert isinstance(listed[0].images, Photographs)
    chosen = torch.tensor([5, 0, 5])
    assert torch.equal(listed[0].images[chosen], decoded[0].images[chosen])
    assert torch.equal(listed[0].images[:4], decoded[0].images[:4])
    sizes = [(tmp_path / n / _store.FILE).stat().st_size for n in ("jpeg", "decoded")]
    assert sizes[1] - sizes[0] > 20 * 3 * 32**2  # no pixel of the others is copied


def test_they_calibrate_with_the_pixels_of_the_rule(photos: Path, tmp_path: Path) -> None:
    artifacts = [made(photos, tmp_path / s, storage=s) for s in ("jpeg", "decoded")]
    images = [_checkpoint.calibration_images(a, *_checkpoint.splits(a)[::2]) for a in artifacts]
    assert torch.equal(*images)
    manifests = [json.loads((a.path / "calibration.json").read_text()) for a in artifacts]
    assert manifests[0] == manifests[1]
    assert artifacts[0].facts["counts"] == artifacts[1].facts["counts"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_piece_is_cut_from_the_photograph_itself(
    orientation: int, suffix: str, tmp_path: Path
) -> None:
    """To the bit what plain Pillow makes of it, whichever way the camera was held."""
    file = tmp_path / f"a.{suffix}"
    pixels = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(file, exif=exif)
    piece = (0.3, 0.9, 0.25, 0.75)
    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    assert upright.size == ((120, 90) if orientation < 5 else (90, 120))
    want = upright.resize((32, 32), Image.Resampling.BILINEAR, box=box_of(piece, *upright.size))
    got = decode_listed(wanted(file, piece), RULE, None)
    np.testing.assert_array_equal(got, np.asarray(want))


def test_a_piece_of_the_photograph_has_more_detail_than_one_of_its_square(tmp_path: Path) -> None:
    """Stripes of two pixels are grey in the square, and stripes in a piece of the photograph."""
    file = tmp_path / "a.png"
    stripes = np.repeat(np.tile([0, 0, 255, 255], 20), 3).reshape(1, 80, 3).astype(np.uint8)
    Image.fromarray(np.repeat(stripes, 80, 0)).save(file)
    piece = (0.0, 0.5, 0.5, 0.5)  # 35 % of the area, in the middle
    rule = replace(RULE, crop="none")
    square = decode_listed(wanted(file), rule, None)
    from_photograph = decode_listed(wanted(file, piece), rule, None)
    draws, values = Draws(0, 0, torch.arange(1)), iter(piece)
    draws.uniform = lambda: torch.tensor([next(values)])  # type: ignore[method-assign]
    from_square = augment(torch.from_numpy(square).permute(2, 0, 1)[None], ("resized-crop",), draws)
    assert from_photograph.std() > 3 * from_square.float().std()


@pytest.mark.parametrize("draft", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_smaller_where_that_suffices(
    draft: int, orientation: int, tmp_path: Path
) -> None:
    """The piece is the same to a fraction of a pixel, and stays twice as large as the view."""
    file, piece = tmp_path / "a.jpg", (0.5, 0.2, 0.4, 0.9)
    rows, columns = np.mgrid[: 120 * draft, : 150 * draft] / draft
    waves = [127 + 100 * np.sin(x) for x in (rows / 9, columns / 7, (rows + columns) / 11)]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pixels = Image.fromarray(np.stack(waves, 2).astype(np.uint8))
    pixels.save(file, quality=95, subsampling=0, exif=exif)
    whole = decode_listed(wanted(file, piece), RULE, None).astype(int)
    drafted = decode_listed(wanted(file, piece), RULE, 2.0).astype(int)
    if draft == 1:  # 35 % of 120 x 150 pixels are 80 wide, 64 are twice the size
        np.testing.assert_array_equal(drafted, whole)
    else:
        assert 0 < np.abs(drafted - whole).max() < 12
        assert np.abs(drafted - whole).mean() < 1.5
    np.testing.assert_array_equal(decode_listed(wanted(file, piece), RULE, 100.0), whole)


@pytest.mark.parametrize("size", [(100, 80), (80, 100), (1000, 20), (20, 1000), (1, 1), (3, 700)])
@pytest.mark.parametrize("squeezed", [False, True])
def test_pieces_lie_within_and_have_the_drawn_shape(size: tuple[int, int], squeezed: bool) -> None:
    for piece in np.random.default_rng(0).random((200, 4)).tolist():
        left, top, right, bottom = box_of(tuple(piece), *size, squeezed)
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
        width, height = (right - left) / size[0], (bottom - top) / size[1]
        ratio = width / height if squeezed else (right - left) / (bottom - top)
        assert 3 / 4 - 1e-9 <= ratio <= 4 / 3 + 1e-9
        if squeezed or max(size) <= 4 / 3 * min(size):
            area = 0.35 + 0.65 * piece[0]
            assert width * height <= area + 1e-9
            if area < 0.6:
                assert width * height == pytest.approx(area)


def test_a_square_ones_piece_is_that_of_its_square() -> None:
    """The same numbers decide both: of (seed, view, sample)."""
    draws = Draws(3, 1, torch.arange(50))
    area, ratio, left, _ = (draws.uniform().double() for _ in range(4))
    for i in range(50):
        box = box_of((area[i].item(), ratio[i].item(), left[i].item(), 0.0), 64, 64)
        side = math.sqrt(0.35 + 0.65 * area[i].item())
        width = min(1.0, side * (4 / 3) ** (ratio[i].item() - 0.5))
        assert box[2] - box[0] == pytest.approx(64 * width)
        assert box[0] == pytest.approx((1 - width) * 64 * left[i].item())


@pytest.fixture(scope="module")
def batches(photos: Path) -> list[list[Wanted]]:
    """Batches of pieces, the last smaller, with one that can't be used."""
    files = sorted(photos.glob("train/*/*.jpg"))
    drawn = np.random.default_rng(0).random((len(files), 4)).tolist()
    every = [wanted(f, tuple(p)) for f, p in zip(files, drawn, strict=True)]
    every[20] = every[20]._replace(sha256=b"x" * 32)
    return [every[i : i + 10] for i in range(0, len(every), 10)]


def test_any_number_of_processes_gives_the_same_bits(
    batches: list[list[Wanted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_decoder, "_PART", 4)
    found = []
    for workers in (0, 1, 2):
        decoder = Decoder(RULE, workers, 10)
        for _ in range(2):
            found.append([(images.copy(), why) for images, why in decoder.batches(batches)])
        decoder.close()
    assert [len(images) for images, _ in found[0]] == [10, 10, 10, 6]
    assert list(found[0][2][1]) == [0] and not any(why for _, why in found[0][:2])
    for other in found[1:]:
        for (images, why), (again, too) in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(images, again)
            assert why == too


def test_batches_that_nobody_fetches_any_more_leave_the_next_ones_whole(
    batches: list[list[Wanted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_decoder, "_PART", 3)
    decoder = Decoder(RULE, 2, 10)
    plain = [images for images, _ in Decoder(RULE, 0, 10).batches(batches)]
    for _ in range(3):
        next(decoder.batches(batches[::-1]))
        for images, (again, _) in zip(plain, decoder.batches(batches), strict=True):
            np.testing.assert_array_equal(images, again)
    decoder.close()


def test_a_process_that_dies_is_one_sentence(batches: list[list[Wanted]]) -> None:
    decoder = Decoder(RULE, 2, 10)
    coming = decoder.batches(batches * 50)
    next(coming)
    mine = children(os.getpid())
    mine[0].kill()
    with pytest.raises(BadInput, match="a process that decodes pictures ended by itself: memory"):
        list(coming)
    decoder.close()
    assert not psutil.wait_procs(mine, 10)[1]


@pytest.mark.parametrize("spoil", ["cut", "changed", "gone", "pipe"])
def test_a_file_that_isnt_what_it_was_is_named(spoil: str, tmp_path: Path) -> None:
    file = folder(tmp_path / "p", 2, 1) / "train/cat/00.jpg"
    one = wanted(file)
    if spoil == "cut":
        cut(file)
    elif spoil == "changed":  # another picture of the same size and time
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
        os.utime(file, ns=times)
    else:
        file.unlink()
        if spoil == "pipe":
            os.mkfifo(file)
    says = {"gone": "no such file", "pipe": "is a pipe"}.get(spoil, "isn't the file that it was")
    with pytest.raises(BadInput, match=f"^{file}: {says}"):
        decode_listed(one, RULE, None)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "train/../../x", "a//b", "a\0"]
)
def test_no_name_in_a_list_leads_out_of_the_folder(name: str, photos: Path, tmp_path: Path) -> None:
    listed = _checkpoint.splits(made(photos, tmp_path / "out"))[0].images._listed
    names = np.frombuffer(name.encode(), np.uint8)
    ends = np.array([len(names)])
    one = listed._replace(names=names, ends=ends, sizes=ends, sha256=listed.sha256[:1])
    assert one.sound()
    with pytest.raises(StorageError, match="picture 0 of the list is named"):
        Photographs(photos, one, torch.tensor([0]), RULE)[:]


@pytest.mark.parametrize("field", ["names", "ends", "sizes", "sha256"])
def test_a_damaged_list_is_one_sentence(field: str, photos: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    artifact = made(photos, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / _store.FILE)
    for spoiled in (tensors[f"train_{field}"][:-1].clone(), tensors[f"train_{field}"].float(),
                    tensors[f"train_{field}"][None].clone()):  # fmt: skip
        save_file({**tensors, f"train_{field}": spoiled}, tmp_path / "out" / _store.FILE)
        with pytest.raises(BadInput, match="its list of pictures is damaged"):
            _checkpoint.splits(artifact)


def test_a_damaged_picture_that_would_calibrate_stops_or_is_passed_over(tmp_path: Path) -> None:
    photos = folder(tmp_path / "p")
    bad = photos / "train/dog/03.jpg"
    cut(bad)
    with pytest.raises(BadInput, match=r"dog/03.jpg: can't be decoded.*data\.on_error=skip"):
        made(photos, tmp_path / "stop", calibration=1000)
    artifact = made(photos, tmp_path / "skip", calibration=1000, on_error="skip")
    (note,) = (n for n in artifact.facts["notes"] if "dog/03.jpg" in n)
    assert note.startswith("not used to calibrate: ")
    counts = artifact.facts["counts"]["train"], artifact.facts["calibration"]["count"]
    assert counts[0] - counts[1] == 1


def test_taken_by_number_a_damaged_one_stops_or_is_the_next_of_its_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As pruning by Taylor's criterion takes them."""
    train = _checkpoint.splits(made(folder(tmp_path / "p"), tmp_path / "out"))[0]
    whole, last = train.images[:], len(train.labels) - 1
    same = (train.labels == train.labels[last]).nonzero().ravel().tolist()
    for one in train.images.wanted([0, 1, last]):
        cut(Path(one.file))
    with pytest.raises(BadInput, match=r"isn't the file that it was.*data\.on_error=skip"):
        train.images[:3]
    train.images.skip = True
    assert torch.equal(train.images[[0, 3, last]], whole[[2, 3, same[0]]])
    said = capsys.readouterr().err
    assert said.count("note: ") == 3 and "the next one of its class" in said


def test_data_that_are_no_files_are_refused(tmp_path: Path) -> None:
    section = DataSection(source="digits", storage="jpeg")
    with pytest.raises(BadInput, match=r"storage: jpeg is for folders of pictures"):
        data.run(section, {}, tmp_path, Context(0, tmp_path, lambda *_: None))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["data.on_error=skip"], "data.on_error: is for data.storage=jpeg; pictures"),
        (["data.workers=2"], "data.workers: is for data.storage=jpeg; pictures"),
        (["data.storage=jpeg", "train.augment=[flip,resized-crop]"],
         "train.augment: with data.storage=jpeg, resized-crop cuts from the photograph itself"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings: list[str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        recipe.load("quickstart", settings)
    allowed = ["data.storage=jpeg", "train.augment=[resized-crop,flip]", "data.on_error=skip"]
    assert recipe.load("quickstart", allowed).data.storage == "jpeg"


def test_what_isnt_said_leaves_keys_as_they_were(photos: Path) -> None:
    plain = data.keyed(DataSection(source=f"imagefolder:{photos}"))
    assert not {"storage", "on_error", "workers"} & plain.keys()
    mine = DataSection(source=f"imagefolder:{photos}", storage="jpeg")
    other = mine.model_copy(update={"on_error": "skip", "workers": 1})
    assert data.keyed(mine) == data.keyed(other) == plain | {"storage": "jpeg"}


def test_much_room_is_told_before_it_is_taken(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_MUCH_BYTES", 30 * 3 * 32**2)
    notes = made(photos, tmp_path / "a", storage="decoded").facts["notes"]
    assert [n for n in notes if "GB as pixels; with data.storage=jpeg they stay" in n]
    assert not [n for n in made(photos, tmp_path / "b").facts["notes"] if "GB" in n]


_HOLDS = """
import sys
from pathlib import Path

if __name__ == "__main__":
    from edgeres.datasets._decoder import Decoder
    from edgeres.datasets._decoding import Wanted
    from edgeres.types import Resize
    import hashlib

    file = Path(sys.argv[1])
    one = Wanted(str(file), len(file.read_bytes()), hashlib.sha256(file.read_bytes()).digest())
    decoder = Decoder(Resize.of(64), 2, 64)

    def own_mb():
        lines = Path("/proc/self/status").read_text().splitlines()
        return sum(int(next(l for l in lines if l.startswith(k)).split()[1])
                   for k in ("RssAnon", "RssShmem")) / 1e3

    seen = []
    for epoch in range(3):
        most = 0.0
        for images, why in decoder.batches([one] * 64 for _ in range(40)):
            assert not why
            most = max(most, own_mb())
        seen.append(most)
        print(most, flush=True)
    if sys.argv[2:]:
        for _ in decoder.batches([one] * 64 for _ in range(10**6)):
            pass
    decoder.close()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts memory as Linux does")
def test_memory_is_flat_however_many_pictures_there_are(photos: Path, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(_HOLDS)
    done = subprocess.run([sys.executable, script, photos / "train/cat/00.jpg"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, _, last = map(float, done.stdout.split())
    assert last < first + 3  # an epoch is 31 MB of pixels


def children(pid: int) -> list[psutil.Process]:
    """The processes that decode for another one."""
    return [p for p in psutil.Process(pid).children() if "spawn_main" in " ".join(p.cmdline())]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_no_process_is_left(sign: int, photos: Path, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(_HOLDS)
    with subprocess.Popen([sys.executable, script, photos / "train/cat/00.jpg", "on"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as running:  # fmt: skip
        assert running.stdout is not None and running.stderr is not None
        try:
            for _ in range(3):
                running.stdout.readline()
            time.sleep(0.2)
            decoding = children(running.pid)
            assert len(decoding) == 2
            os.killpg(running.pid, sign) if sign == signal.SIGINT else running.send_signal(sign)
            assert running.wait(60) != 0
            assert not psutil.wait_procs(decoding, 10)[1]
            assert running.stderr.read().count("Traceback") == (sign == signal.SIGINT)
        finally:
            running.kill()
