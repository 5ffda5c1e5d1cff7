"""Folders of pictures of every kind, and folders that aren't."""

from __future__ import annotations

import dataclasses
import os
import re
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from edgeres import datasets
from edgeres.datasets import _decoding
from edgeres.errors import BadInput
from edgeres.recipe import DataSection
from edgeres.stages import Context
from edgeres.stages import data as data_stage
from edgeres.types import Resize

RED, BLUE, GREEN = (200, 30, 40), (20, 60, 210), (10, 180, 50)


def picture(colour: tuple[int, ...] = RED, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, colour)


def fill(folder: Path, split: str, classes: tuple[str, ...] = ("cat", "dog"), n: int = 5) -> Path:
    """`n` flat PNGs a class, each of its own colour."""
    for k, name in enumerate(classes):
        (folder / split / name).mkdir(parents=True)
        for i in range(n):
            colour = (100 * k + i, len(split) * 10, 128)
            picture(colour).save(folder / split / name / f"{i}.png")
    return folder


def load(folder: Path, size_px: int = 16) -> datasets.Dataset:
    return datasets.load(f"imagefolder:{folder}", size_px, validation=0.2)


def counts(data: datasets.Dataset) -> list[int]:
    return [len(part.labels) for part in (data.train, data.validation, data.test)]


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train",), [32, 8, 10]),  # a fifth is the test split, a fifth of the rest validation
        (("train", "val"), [40, 10, 50]),  # val is the test split
        (("train", "validation"), [40, 10, 50]),
        (("train", "test"), [40, 10, 50]),
        (("train", "val", "test"), [50, 50, 50]),
        (("train", "validation", "test"), [50, 50, 50]),
    ],
)
def test_the_splits_that_are_there_are_used(
    tmp_path: Path, splits: tuple[str, ...], expected: list[int]
) -> None:
    for split in splits:
        fill(tmp_path, split, n=25)
    data = load(tmp_path)
    assert counts(data) == expected
    assert data.classes == ("cat", "dog")
    for part in (data.train, data.validation, data.test):
        np.testing.assert_array_equal(part.images[:, 0, 0, 0] >= 100, part.labels == 1)
        assert len(np.unique(part.labels)) == 2
    if "test" in splits:
        assert (data.test.images[..., 1] == 40).all()
    elif len(splits) == 2:
        assert (data.test.images[..., 1] == 10 * len(splits[1])).all()
    if len(splits) == 3:
        assert (data.validation.images[..., 1] == 10 * len(splits[1])).all()


def test_cut_splits_are_disjoint_and_the_test_split_ignores_the_seed(tmp_path: Path) -> None:
    fill(tmp_path, "train", n=20)
    first, other = (datasets.load(f"imagefolder:{tmp_path}", 16, seed=s) for s in (0, 1))
    np.testing.assert_array_equal(first.test.images, other.test.images)
    seen = [
        {image.tobytes() for image in part.images}
        for part in (first.train, first.validation, first.test)
    ]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 40


def decoded(tmp_path: Path, save: Callable[[Path], object], name: str, px: int = 16) -> np.ndarray:
    save(tmp_path / name)
    return _decoding.decode(tmp_path / name, px)


def flat(colour: tuple[int, int, int], px: int = 16) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (px, px, 3))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.jpg", "a.JPEG", "a.jfif", "a.webp", "a.tif",
                                  "a.tiff", "a.gif", "a.avif"])  # fmt: skip
def test_every_format(tmp_path: Path, name: str) -> None:
    if name == "a.avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    got = decoded(tmp_path, lambda p: picture().save(p, quality=95), name)
    assert got.dtype == np.uint8
    np.testing.assert_allclose(got.astype(int), flat(RED), atol=4)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (20, 20), 77), (77, 77, 77)),
        (Image.new("1", (20, 20), 1), (255, 255, 255)),
        (picture().quantize(4), RED),
        (Image.new("RGBA", (20, 20), (*RED, 255)), RED),
        (Image.new("RGBA", (20, 20), (*RED, 0)), (255, 255, 255)),
        (Image.new("RGBA", (20, 20), (0, 0, 0, 51)), (204, 204, 204)),
        (Image.new("LA", (20, 20), (77, 255)), (77, 77, 77)),
        (Image.fromarray(np.full((20, 20), 77 * 257, np.uint16)), (77, 77, 77)),
        (Image.fromarray(np.full((20, 20), 200, np.uint16)), (1, 1, 1)),
        (Image.fromarray(np.full((20, 20), 65535, np.uint16)), (255, 255, 255)),
    ],
    ids=["grey", "bilevel", "palette", "opaque", "transparent", "translucent", "grey alpha",
         "16 bit", "dark 16 bit", "white 16 bit"],
)  # fmt: skip
def test_every_mode_of_a_png(
    tmp_path: Path, image: Image.Image, expected: tuple[int, int, int]
) -> None:
    got = decoded(tmp_path, lambda p: image.save(p), "a.png")
    np.testing.assert_array_equal(got, flat(expected))


def test_a_transparent_palette_colour_shows_white(tmp_path: Path) -> None:
    image = picture().quantize(4)
    used = image.getpixel((0, 0))
    got = decoded(tmp_path, lambda p: image.save(p, transparency=used), "a.png")
    np.testing.assert_array_equal(got, flat((255, 255, 255)))


def test_a_cmyk_jpeg(tmp_path: Path) -> None:
    got = decoded(tmp_path, lambda p: picture().convert("CMYK").save(p, quality=95), "a.jpg")
    np.testing.assert_allclose(got.astype(int), flat(RED), atol=6)


def test_a_turned_photograph_is_set_upright(tmp_path: Path) -> None:
    image = picture(RED, (40, 40))
    image.paste(picture(BLUE, (40, 20)), (0, 20))  # blue below
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise: blue on the left
    got = decoded(tmp_path, lambda p: image.save(p, quality=95, exif=exif), "a.jpg")
    np.testing.assert_allclose(got[:, :6].astype(int), flat(BLUE)[:, :6], atol=30)
    np.testing.assert_allclose(got[:, -6:].astype(int), flat(RED)[:, -6:], atol=30)


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (100, 100), (61, 97), (5, 9)])
def test_the_centre_is_cut_as_by_resizing_and_cropping(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    image = Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))
    got = decoded(tmp_path, lambda p: image.save(p), "a.png", px=20)
    scale = min(23, max(20, min(size))) / min(size)  # 23 = round(20 * 256 / 224)
    whole = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = (whole.width - 20) // 2, (whole.height - 20) // 2
    cropped = np.asarray(whole.crop((left, top, left + 20, top + 20)))
    step = 255 / 20  # half a pixel of difference, from the rounding of the crop
    np.testing.assert_allclose(got.astype(int), cropped.astype(int), atol=step)


def test_a_line_of_pixels_stays_small(tmp_path: Path) -> None:
    got = decoded(tmp_path, lambda p: picture(GREEN, (50_000, 1)).save(p), "a.png", px=64)
    np.testing.assert_array_equal(got, flat(GREEN, 64))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("px", [12_000, 60_000])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, px: int) -> None:
    (tmp_path / "a.png").write_bytes(png_header(px, px))
    with pytest.raises(BadInput, match=r"a.png: .*(too many|exceeds limit)"):
        _decoding.decode(tmp_path / "a.png", 16)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(1, 70_000), (70_000, 1), (1, 120_000_000)])
def test_a_picture_of_one_pixel_a_row_is_refused_by_its_header(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    (tmp_path / "a.png").write_bytes(png_header(*size))
    with pytest.raises(BadInput, match=r"a.png: \d+x\d+ pixels are too many"):
        _decoding.decode(tmp_path / "a.png", 16)


def test_a_large_picture_out_of_few_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_header(8000, 4000))
    with pytest.raises(BadInput, match=r"a.png: \d+ bytes would become 8000x4000 pixels, 96 MB"):
        _decoding.decode(tmp_path / "a.png", 16)
    picture(GREEN, (4000, 3000)).save(tmp_path / "plain.png")  # one colour, of a camera's size
    assert _decoding.decode(tmp_path / "plain.png", 16).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("name", "says"),
    [(b"c\xff", r"\\udcff"), (b"c\nsignature: good", r"\\n"), (b"c\x1b[2J", r"\\x1b"),
     ("c\u202e".encode(), r"\\u202e"), ("c\u2028".encode(), r"\\u2028"), (b" ", "is empty")],
)  # fmt: skip
def test_a_class_name_that_is_not_one_line_of_text_is_refused_at_once(
    tmp_path: Path, name: bytes, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "train")
    (tmp_path / "train" / "cat").rename(tmp_path / "train" / os.fsdecode(name))
    monkeypatch.setattr(_decoding, "decode", lambda *_: pytest.fail("a picture was decoded"))
    with pytest.raises(BadInput, match=r"the class name .*rename the folder") as refused:
        datasets.opened(f"imagefolder:{tmp_path}", 16)
    assert re.search(says, str(refused.value)) and str(refused.value).isprintable()


def test_other_languages_name_classes_too(tmp_path: Path) -> None:
    names = ("größe", "猫 かわいい", "قطة", "crème\u00a0brûlée")
    fill(tmp_path, "train", names, n=10)
    assert set(datasets.opened(f"imagefolder:{tmp_path}", 16).classes) == set(names)


def truncated_jpeg() -> bytes:
    import io

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("bad.jpg", truncated_jpeg()),
        ("bad.png", b""),
        ("bad.png", b"<html>404</html>"),
        ("bad.png", png_header(20, 20)),
        ("bad.png", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"),  # no frame in it
        ("bad.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),  # a format not asked for
        ("bad.bmp", b"BM" + bytes(60)),
        ("bad.webp", b"RIFF\x10\x00\x00\x00WEBPVP8 "),
    ],
    ids=["truncated", "empty", "html", "no pixels", "gif", "postscript", "zeros", "cut off"],
)
def test_a_file_that_cant_be_decoded_is_named(tmp_path: Path, name: str, contents: bytes) -> None:
    fill(tmp_path, "train")
    bad = tmp_path / "train" / "dog" / name
    bad.write_bytes(contents)
    with pytest.raises(BadInput, match="can't be decoded") as caught:
        load(tmp_path)
    assert str(bad) in str(caught.value)


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, "train", n=10)
    for stray in ("README.md", "train/list.csv", "train/cat/Thumbs.db", "train/cat/._0.png"):
        (tmp_path / stray).write_text("no picture")
    (tmp_path / "train" / ".cache").mkdir()
    assert sum(counts(load(tmp_path))) == 20


def test_links_inside_are_followed_and_links_outside_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data", "train")
    inside = folder / "train" / "cat" / "link.png"
    inside.symlink_to(folder / "train" / "cat" / "0.png")
    assert sum(counts(load(folder))) == 11
    picture().save(tmp_path / "secret.png")
    outside = folder / "train" / "dog" / "link.png"
    outside.symlink_to(tmp_path / "secret.png")
    for use in (load, lambda f: datasets.fingerprint(f"imagefolder:{f}")):
        with pytest.raises(BadInput, match="a link to outside") as caught:
            use(folder)
        assert str(outside) in str(caught.value)


def test_a_class_folder_that_is_a_link_outside_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data", "train")
    fill(tmp_path / "elsewhere", "train", ("secret",))
    (folder / "train" / "extra").symlink_to(tmp_path / "elsewhere" / "train" / "secret")
    with pytest.raises(BadInput, match="a link to outside"):
        load(folder)


def test_a_folder_reached_through_a_link_is_fine(tmp_path: Path) -> None:
    fill(tmp_path / "data", "train", n=10)
    (tmp_path / "here").symlink_to(tmp_path / "data")
    assert sum(counts(load(tmp_path / "here"))) == 20


@pytest.mark.parametrize("kind", ["broken", "loop", "pipe", "folder"])
def test_what_isnt_a_file_is_named(tmp_path: Path, kind: str) -> None:
    fill(tmp_path, "train")
    odd = tmp_path / "train" / "cat" / "odd.png"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
    else:
        odd.symlink_to(odd if kind == "loop" else tmp_path / "nothing.png")
    with pytest.raises(BadInput, match=r"odd.png: not a file"):
        load(tmp_path)


def test_splits_must_have_the_same_classes(tmp_path: Path) -> None:
    fill(tmp_path, "train", ("cat", "dog"))
    fill(tmp_path, "val", ("cat", "dog", "newt"))
    with pytest.raises(BadInput, match="class folder 'newt' is in val but not in train"):
        load(tmp_path)


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "train")
    (tmp_path / "train" / "newt").mkdir()
    with pytest.raises(BadInput, match=r"train/newt: no picture"):
        load(tmp_path)


def test_an_empty_train_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(BadInput, match="no class folder in it"):
        load(tmp_path)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    fill(tmp_path, "train", ("cat",))
    with pytest.raises(BadInput, match="1 class; a classifier needs two"):
        load(tmp_path)


def test_two_validation_folders_are_ambiguous(tmp_path: Path) -> None:
    for split in ("train", "val", "validation"):
        fill(tmp_path, split)
    with pytest.raises(BadInput, match="keep one"):
        load(tmp_path)


@pytest.mark.realdata
def test_real_photographs(real_data: Path) -> None:
    folder = real_data / "imagenette-mini"
    if not folder.is_dir():
        pytest.skip("EDGERES_DATA has no imagenette-mini")
    data = datasets.load(f"imagefolder:{folder}")
    assert counts(data) == [900, 100, 400]
    assert 100 < data.train.images.mean() < 130


def test_a_large_jpeg_is_decoded_smaller_to_nearly_the_same(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:480, :640]
    waves = 127 + 100 * np.sin(rows / 40) * np.cos(columns / 30)
    pixels = np.stack([waves, waves[::-1], 255 - waves], 2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    drafted = _decoding.decode(tmp_path / "a.jpg", 32, draft_margin=_decoding.DRAFT_MARGIN).astype(
        int
    )
    whole = _decoding.decode(tmp_path / "a.jpg", 32).astype(int)
    assert 0 < np.abs(drafted - whole).max() <= 4


def save(file: Path, colour: tuple[int, ...] = RED, size: tuple[int, int] = (40, 30)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture(colour, size).save(file)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val", "VALID"])
def test_a_split_may_be_spelled_as_people_do(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "train", n=6)
    fill(tmp_path, name, n=3)
    assert counts(load(tmp_path)) == [10, 2, 6]


def test_class_folders_alone_are_split_here_and_folders_in_them_are_looked_through(
    tmp_path: Path,
) -> None:
    for name in ("cat", "dog"):
        for i in range(10):
            save(tmp_path / name / f"{i % 3}" / "deep" / f"{i}.png", (100, i, 0))
    save(tmp_path / "cover.png")
    (tmp_path / "cat" / "boxes.txt").write_text("0 0 1 1")
    (tmp_path / "cat" / "0" / "IMG_1.HEIC").write_bytes(b"x")
    data = load(tmp_path)
    assert counts(data) == [13, 3, 4] and data.classes == ("cat", "dog")
    assert data.notes == (
        "no folder 'train': all class folders are taken, and split here",
        "3 files passed over: 1 .heic, 1 .txt, 1 outside class folders",
        "no folder 'test': a fifth of the training images is the test split",
    )


def test_a_path_one_folder_too_high_is_said(tmp_path: Path) -> None:
    fill(tmp_path / "imagenette", "train")
    fill(tmp_path / "other", "train")
    with pytest.raises(BadInput, match=r"imagenette: has the splits; write the path with"):
        load(tmp_path)


def test_tiny_imagenets_layout(tmp_path: Path) -> None:
    for name in ("n02", "n01"):
        for i in range(5):
            save(tmp_path / "train" / name / "images" / f"{name}_{i}.JPEG")
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("x")
    for i in range(4):
        save(tmp_path / "val" / "images" / f"val_{i}.JPEG", BLUE if i % 2 else RED)
        save(tmp_path / "test" / "images" / f"test_{i}.JPEG")
    lines = [f"val_{i}.JPEG\t{'n02' if i % 2 else 'n01'}\t0\t0\t9\t9\n" for i in range(4)]
    listed = tmp_path / "val" / "val_annotations.txt"
    listed.write_text("".join(lines))
    data = load(tmp_path)
    assert counts(data) == [8, 2, 4] and data.classes == ("n01", "n02")
    assert (data.test.images[:, 8, 8, 2] > 100).tolist() == (data.test.labels == 1).tolist()
    assert data.notes == (
        "test: its pictures have no labels; left out",
        "2 files passed over: 2 .txt",
        "no folder 'test': the validation images are the test split",
    )
    before = datasets.fingerprint(f"imagefolder:{tmp_path}")
    listed.write_text("".join(lines).replace("n02", "n01", 1))
    assert datasets.fingerprint(f"imagefolder:{tmp_path}") != before
    for wrong in ("val_9.JPEG\tn01\n", "../../x.png\tn01\n", "val_0.JPEG n01\n"):
        listed.write_text(wrong)
        with pytest.raises(BadInput, match=r"val_9.JPEG: not a file|line 1: expected"):
            load(tmp_path)


def test_a_class_that_the_test_split_lacks_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "train", ("cat", "dog", "newt"), n=10)
    fill(tmp_path, "val", ("newt", "cat"), n=2)
    (tmp_path / "val" / "dog").mkdir()
    data = load(tmp_path)
    assert data.test.labels.tolist() == [0, 0, 2, 2]
    assert data.notes == (
        "val: no picture of 'dog'; what is measured there says nothing of them",
        "no folder 'test': the validation images are the test split")  # fmt: skip


def test_names_are_compared_as_people_read_them(tmp_path: Path) -> None:
    fill(tmp_path, "train", (unicodedata.normalize("NFD", "größe"), "cat"))
    fill(tmp_path, "val", (unicodedata.normalize("NFC", "größe"), "cat"))
    assert load(tmp_path).classes == ("cat", "größe")
    (tmp_path / "train" / unicodedata.normalize("NFC", "größe")).mkdir()
    with pytest.raises(BadInput, match="two folders are named 'größe', in different spellings"):
        load(tmp_path)


def test_linked_pictures_are_read_where_the_recipe_says_so(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data", "train", n=10)
    fill(tmp_path / "elsewhere", "train", ("newt",), n=10)
    (folder / "train" / "newt").symlink_to(tmp_path / "elsewhere" / "train" / "newt")
    (folder / "train" / "cat" / "loop").symlink_to(folder / "train" / "cat")
    source = f"imagefolder:{folder}"
    with pytest.raises(BadInput, match=r"a link to outside .*data.links=true"):
        load(folder)
    data = datasets.load(source, 16, links=True)
    assert sum(counts(data)) == 30 and data.classes == ("cat", "dog", "newt")
    assert datasets.fingerprint(source, links=True)
    with pytest.raises(BadInput, match=r"all have one size; leave out data.links"):
        datasets.load("digits", links=True)


def test_all_bad_pictures_are_named_at_once(tmp_path: Path) -> None:
    fill(tmp_path, "train")
    fill(tmp_path, "val")
    bad = [tmp_path / "train" / "cat" / "0.png", tmp_path / "train" / "dog" / "4.png",
           tmp_path / "val" / "dog" / "2.png"]  # fmt: skip
    for file in bad:
        file.write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"^3 pictures can't be used: ") as caught:
        data_stage.run(DataSection(source=f"imagefolder:{tmp_path}", size=16), {}, tmp_path,
                 Context(0, tmp_path, lambda *_: None))  # fmt: skip
    assert all(str(file) in str(caught.value) for file in bad)


@pytest.mark.parametrize(
    ("size", "asked", "box"),
    [
        ((96, 96), {}, (0, 0, 96, 96)),  # of the size: whole
        ((100, 96), {}, (2, 0, 98, 96)),
        ((110, 110), {}, (7, 7, 103, 103)),  # scaled by 1, as torchvision would
        ((220, 440), {}, (14, 124, 206, 316)),
        ((50, 80), {}, (0, 15, 50, 65)),  # never enlarged to be cut
        ((96, 200), {"crop": "none"}, (0, 0, 96, 200)),
        ((200, 400), {"short_side_px": 96}, (0, 100, 200, 300)),
    ],
)
def test_what_of_a_picture_is_taken(
    size: tuple[int, int], asked: dict[str, Any], box: tuple[float, ...], tmp_path: Path
) -> None:
    rule = dataclasses.replace(Resize.of(96), **asked)
    assert rule.box(*size) == pytest.approx(box)
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    image.save(tmp_path / "a.png")
    got = _decoding.decode(tmp_path / "a.png", 96, rule)
    if (box[2] - box[0], box[3] - box[1]) == (96, 96):
        np.testing.assert_array_equal(got, np.asarray(image.crop([int(x) for x in box])))
    want = image.resize((96, 96), Image.Resampling.BILINEAR, box=rule.box(*size))
    np.testing.assert_array_equal(got, np.asarray(want))


def test_it_is_torchvisions_rule_for_large_pictures(tmp_path: Path) -> None:
    """Resize(256), CenterCrop(224), but in one resampling."""
    waves = 127 + 100 * np.sin(np.mgrid[:400, :400].sum(0) / 9)
    image = Image.fromarray(np.repeat(waves[..., None], 3, 2).astype(np.uint8))
    image.save(tmp_path / "a.png")
    scaled = image.resize((256, 256), Image.Resampling.BILINEAR)
    want = np.asarray(scaled.crop((16, 16, 240, 240))).astype(int)
    got = _decoding.decode(tmp_path / "a.png", 224).astype(int)
    assert np.abs(got - want).max() <= 4


def test_the_test_split_is_what_the_rule_gives_to_the_bit(tmp_path: Path) -> None:
    """JPEGs of the training split may be decoded smaller, for speed."""
    rows, columns = np.mgrid[:480, :640]
    pixels = np.stack([rows % 256, columns % 256, (rows * columns) % 256], 2).astype(np.uint8)
    for i in range(10):
        for name in ("cat", "dog"):
            file = tmp_path / name / f"{i}.jpg"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(np.roll(pixels, 9 * i, 1)).save(file, quality=90)
    data = datasets.load(f"imagefolder:{tmp_path}", 32, resize={"interpolation": "bicubic"})
    want = set()
    for file in tmp_path.rglob("*.jpg"):
        with Image.open(file) as image:
            small = image.resize((32, 32), Image.Resampling.BICUBIC, data.resize.box(*image.size))
        want.add(np.asarray(small).tobytes())
    assert {image.tobytes() for image in data.test.images} <= want
    assert not {image.tobytes() for image in data.train.images} <= want


def test_a_photograph_in_both_splits_is_counted_and_never_calibrates(tmp_path: Path) -> None:
    """Though the training split may decode a large JPEG in another way."""
    noise = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for i in range(6):
            file = tmp_path / "train" / name / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = noise.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((500, 400)).save(file)
            if i < 3:
                copy = tmp_path / "test" / name / f"other{i}.jpg"
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
    section = DataSection(source=f"imagefolder:{tmp_path}", size=32, validation=0.2)
    (tmp_path / "out").mkdir()
    facts = data_stage.run(section, {}, tmp_path / "out", Context(0, tmp_path, lambda *_: None))
    shared = int(facts["notes"][-1].split()[0])
    assert facts["notes"][-1] == f"{shared} of the test images are training images, too"
    assert 3 <= shared <= 6  # a fifth of the training images are validation images
    assert facts["calibration"]["count"] == facts["counts"]["train"] - shared
    assert facts["calibration"]["overlap_with_test"] == 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "train" / "a").mkdir() or (f / "train" / "a" / os.fsdecode(b"q.\xff"))
         .write_bytes(b""), r"train.a: no picture"),
        (lambda f: deep(f / "train" / "cat", 100), "more than 64 folders in one another"),
        (lambda f: (f / "val" / "val_annotations.txt").symlink_to(f.parent / "secret"),
         "val_annotations.txt: a link to outside"),
        (lambda f: (f / "val" / "val_annotations.txt").write_text("0.png\tcat\n0.png\tdog\n"),
         r"line 2: '0.png' is there twice"),
        (lambda f: (f / "test").symlink_to(f.parent), "test: a link to outside"),
    ],
    ids=["not UTF-8", "deep", "linked list", "twice", "linked split"],
)  # fmt: skip
def test_a_hostile_folder_is_refused_in_a_sentence(
    spoil: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "data", "train")
    save(folder / "val" / "images" / "0.png")
    (tmp_path / "secret").write_text("0.png\tcat\n")
    spoil(folder)
    with pytest.raises(BadInput, match=says) as caught:
        load(folder)
    assert str(caught.value).isprintable()


def deep(folder: Path, count: int) -> None:
    for _ in range(count):
        folder = folder / "z"
        folder.mkdir()


def test_notes_can_be_shown_whatever_files_are_called(tmp_path: Path) -> None:
    fill(tmp_path, "train", n=10)
    fill(tmp_path, "test")
    for name in (b"q.\xff", b"a.\x1b[31m", b"b.txt", b"c"):
        (tmp_path / "train" / "cat" / os.fsdecode(name)).write_bytes(b"")
    (note,) = load(tmp_path).notes
    assert note == "4 files passed over: 2 of other kinds, 1 .txt, 1 without a suffix"


def test_a_short_side_below_the_size_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "train", n=10)
    source = f"imagefolder:{tmp_path}"
    with pytest.raises(BadInput, match=r"short_side: is 64, less than the images' size, 96 px"):
        datasets.opened(source, None, resize={"short_side_px": 64})
    assert datasets.opened(source, None, resize={"short_side_px": 64, "crop": "none"})
