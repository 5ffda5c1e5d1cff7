"""Which pictures a folder holds, of which split and class, and what in it is left out.

Layouts: `<split>/<class>/…/picture`; `<class>/…/picture`, without splits; and Tiny ImageNet's,
whose `val/val_annotations.txt` says the class of each of `val/images`.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edgeres.datasets._decoding import SUFFIXES
from edgeres.disk import read_bounded
from edgeres.errors import BadInput

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_ANNOTATIONS, _MOST_BYTES = "val_annotations.txt", 64 << 20
_UNLABELLED = {"images"}  # the one folder of a test split without labels
_OF_SYSTEMS = {"thumbs.db", "desktop.ini"}
_MOST_NAMED, _DEEPEST = 5, 64
_PLAIN = re.compile(r"\.[a-z0-9_-]{1,12}")  # a suffix that can be shown

Classes = dict[str, list[Path]]


class Found(NamedTuple):
    """A folder's pictures.

    Attributes:
        splits: of "train", and of "validation" and "test" where there are any: class name (NFC)
            -> its pictures; every split has every class of "train", in the order of labels.
        others: further files that say something of them.
        notes: what was left out or assumed, a line each.
    """

    splits: dict[str, Classes]
    others: tuple[Path, ...]
    notes: tuple[str, ...]


def found(path: Path, links: bool) -> Found:
    """Look through a folder.

    Args:
        links: also take what links lead to outside the folder.

    Raises:
        BadInput: it isn't laid out in a known way, or a picture is no file.
    """
    scan = _Scan(path, links)
    folders = _split_folders(path)
    for folder in folders.values():
        scan.require_inside(folder)
    if "train" not in folders:
        if folders:
            there = next(iter(folders.values())).name
            raise BadInput(f"{path}: no folder 'train' beside '{there}'; expected "
                           "train/<class>/<pictures>")  # fmt: skip
        scan.notes.append("no folder 'train': all class folders are taken, and split here")
        return Found({"train": scan.whole(path)}, (), scan.said())
    train = scan.whole(folders["train"])
    splits, others = {"train": train}, []
    for split, folder in folders.items():
        annotations = folder / _ANNOTATIONS
        if split == "train":
            continue
        if os.path.lexists(annotations):
            scan.require_file(annotations)
            others.append(annotations)
            classes = scan.annotated(folder, annotations)
        else:
            classes = scan.classes(folder)
        if set(classes) == _UNLABELLED and "images" not in train:
            scan.notes.append(f"{folder.name}: its pictures have no labels; left out")
            continue
        splits[split] = scan.like(train, _require_some(folder, classes), folder, folders["train"])
    return Found(splits, tuple(others), scan.said())


def _split_folders(path: Path) -> dict[str, Path]:
    """Split -> its folder, however it is spelled."""
    here = [entry for entry in sorted(path.iterdir()) if entry.is_dir()]
    folders: dict[str, Path] = {}
    for split, spellings in _SPLITS.items():
        named = [entry for entry in here if entry.name.casefold() in spellings]
        if len(named) > 1:
            raise BadInput(f"{path}: both '{named[0].name}' and '{named[1].name}' are there; "
                           "keep one")  # fmt: skip
        if named:
            folders[split] = named[0]
    return folders


def _require_some(folder: Path, classes: Classes) -> Classes:
    if not classes:
        raise BadInput(
            f"{folder}: no class folder in it; expected {folder.name}/<class>/<pictures>"
        )
    return classes


class _Scan:
    """Looks through the folders of one data set, and remembers what it passes over."""

    def __init__(self, path: Path, links: bool):
        self.path, self.root, self.links = path, path.resolve(), links
        self.notes: list[str] = []
        self._passed: Counter[str] = Counter()

    def classes(self, folder: Path) -> Classes:
        """Class name -> its pictures, both sorted; the class folders' own folders belong to it."""
        classes: Classes = {}
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                self._pass_over(entry.name)
                continue
            name = unicodedata.normalize("NFC", entry.name)
            if name in classes:
                raise BadInput(f"{folder}: two folders are named '{name}', in different spellings "
                               "of the same characters; merge them")  # fmt: skip
            if folder == self.path and _split_folders(entry):
                raise BadInput(f"{entry}: has the splits; write the path with this folder")
            classes[name] = self._below(entry)
        return classes

    def whole(self, folder: Path) -> Classes:
        """The classes of the training split, each with a picture."""
        classes = _require_some(folder, self.classes(folder))
        for name, files in classes.items():
            if not files:
                raise BadInput(f"{folder / name}: no picture in it ({', '.join(sorted(SUFFIXES))})")
        return dict(sorted(classes.items()))

    def like(self, train: Classes, classes: Classes, folder: Path, of_train: Path) -> Classes:
        """A split's classes in the order of the training split's; which are missing is noted."""
        for name in classes:
            if name not in train:
                raise BadInput(f"{self.path}: class folder '{name}' is in {folder.name} but not in "
                               f"{of_train.name}; nothing can learn it")  # fmt: skip
        missing = [name for name in train if not classes.get(name)]
        if len(missing) == len(train):
            raise BadInput(f"{folder}: no picture in its class folders")
        if missing:
            self.notes.append(f"{folder.name}: no picture of {_listed(missing)}; what is measured "
                              "there says nothing of them")  # fmt: skip
        return {name: classes.get(name, []) for name in train}

    def annotated(self, folder: Path, annotations: Path) -> Classes:
        """Tiny ImageNet's validation split: `name<TAB>class<TAB>box` in each line."""
        text = read_bounded(annotations, _MOST_BYTES, "list of labels").decode("utf-8", "replace")
        classes: Classes = {}
        seen: set[str] = set()
        for number, line in enumerate(text.splitlines(), 1):
            name, _, rest = line.partition("\t")
            label = rest.partition("\t")[0]
            if not name or not label or "/" in name or name in (".", ".."):
                raise BadInput(f"{annotations}, line {number}: expected a picture's name and its "
                               "class, with a tab between them")  # fmt: skip
            if name in seen:
                raise BadInput(f"{annotations}, line {number}: {name!a} is there twice; keep one")
            seen.add(name)
            file = folder / "images" / name
            self.require_file(file)
            classes.setdefault(unicodedata.normalize("NFC", label), []).append(file)
        return classes

    def said(self) -> tuple[str, ...]:
        """The notes, with how many files were passed over."""
        if not self._passed:
            return tuple(self.notes)
        most = sorted(self._passed.items(), key=lambda found: (-found[1], found[0]))
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in most[:_MOST_NAMED])
        return (*self.notes, f"{self._passed.total():,} files passed over: {kinds}")

    def _below(self, folder: Path) -> list[Path]:
        files, seen = [], {folder.resolve()}
        self.require_inside(folder)
        for where, folders, names in os.walk(folder, followlinks=True, onerror=_raised):
            here = Path(where)
            if len(here.relative_to(folder).parts) > _DEEPEST:
                raise BadInput(f"{folder}: more than {_DEEPEST} folders in one another; move the "
                               "pictures up")  # fmt: skip
            folders[:] = [f for f in sorted(folders) if not f.startswith(".")]
            for name in list(folders):
                below = (here / name).resolve()
                self.require_inside(here / name)
                if below in seen:  # a loop, or the same folder twice
                    folders.remove(name)
                seen.add(below)
                if Path(name).suffix.lower() in SUFFIXES:
                    raise BadInput(f"{here / name}: not a file, but a folder; rename it")
            for name in sorted(names):
                if name.startswith(".") or name.casefold() in _OF_SYSTEMS:
                    continue
                if Path(name).suffix.lower() not in SUFFIXES:
                    self._pass_over(name)
                    continue
                file = here / name
                if not stat.S_ISREG(file.lstat().st_mode):  # else it is where its folder is
                    self.require_file(file)
                files.append(file)
        return files

    def _pass_over(self, name: str) -> None:
        if name.casefold() not in _OF_SYSTEMS:
            kind = Path(name).suffix.lower()
            known = "outside class folders" if kind in SUFFIXES else kind or "without a suffix"
            self._passed[known if not kind or _PLAIN.fullmatch(kind) else "of other kinds"] += 1

    def require_file(self, file: Path) -> None:
        """Raise BadInput unless it is a file that may be read."""
        if not file.is_file():
            raise BadInput(f"{file}: not a file, or a broken link; replace or remove it")
        self.require_inside(file)

    def require_inside(self, named: Path) -> None:
        """Raise BadInput if it leads out of the data set, and that isn't allowed."""
        if not self.links and not named.resolve().is_relative_to(self.root):
            raise BadInput(f"{named}: a link to outside {self.root}; copy what it leads to, or "
                           "trust the folder's links: data.links=true")  # fmt: skip


def _raised(error: OSError) -> None:
    raise error


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_MOST_NAMED])
    return shown + (f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else "")


def flat(classes: Mapping[str, list[Path]]) -> list[Path]:
    """Its pictures, class by class."""
    return [file for files in classes.values() for file in files]
