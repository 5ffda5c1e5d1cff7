"""TensorFlow SavedModels for TF Serving and TensorFlow's own tools; NHWC, any batch size.

    FILE.savedmodel/saved_model.pb             one graph, its weights constants in it
    FILE.savedmodel/assets.extra/NOTE.txt      what the file says of itself

A flat graph of constants needs no checkpoint and holds nothing random (a `tf.Module`'s functions
have numbered names, its fingerprint a random one), and it can be read without being loaded.
`tf.saved_model.load`, TF Serving and the converters take it as they take any SavedModel.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from edgeres.disk import storage_errors
from edgeres.errors import BadInput
from edgeres.quiet import quiet
from edgeres.targets import Session, Source, Tracer, require
from edgeres.targets._graph import FileGraph
from edgeres.targets._structure import Structure
from edgeres.types import ScaleTable, TensorSpec

SUMMARY = "TensorFlow SavedModel: TF Serving"
PRECISIONS = ("fp32",)
SUFFIX = ".savedmodel"
PACKAGE = "tensorflow"
EXTRA = "tensorflow"
RUNTIME = "TensorFlow"
ANY_BATCH = True
SCHEMES: dict[str, Callable[[ScaleTable], ScaleTable]] = {}


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .savedmodel folder with the signature `serving_default`; a SavedModel is replaced.

    Raises:
        BadInput: a folder of that name holds something else.
        MissingComponent: tensorflow is not installed.
    """
    require(f"savedmodel-{precision}")
    with quiet(f"writing {path.name} with tensorflow"), storage_errors(path):
        from edgeres.targets._savedmodel_write import saved_model

        content = saved_model(source.model)
        if path.is_dir() and any(path.iterdir()):
            if not (path / "saved_model.pb").is_file():
                raise BadInput(f"{path}: holds no SavedModel; move it out of the way")
            shutil.rmtree(path)
        notes = path / "assets.extra"  # the place that TensorFlow leaves to its users
        notes.mkdir(parents=True)
        (path / "saved_model.pb").write_bytes(content)
        for key, text in source.metadata.items():
            (notes / f"{key}.txt").write_bytes(text.encode())
    graph = read(path)
    return graph.input, graph.output


def read(path: Path) -> FileGraph:
    """Read the graph as stored; nothing in it is run.

    Raises:
        BadInput: not a SavedModel, a damaged one, one whose network is in functions or variables,
            or not of one input and one output.
        MissingComponent: tensorflow is not installed.
    """
    require("savedmodel-fp32")
    with quiet(f"reading {path.name}"):
        from edgeres.targets._savedmodel_read import graph

        return graph(path)


def structure(path: Path, source: Source, precision: str) -> Structure:  # noqa: ARG001
    """The folder's own graph, each operation as it is stored, and what else it holds.

    Args:
        source: what it must have been written from: its notes say that.
        precision: there is one.

    Raises:
        BadInput, MissingComponent: as `read`.
    """
    require("savedmodel-fp32")
    with quiet(f"reading {path.name}"):
        from edgeres.targets._savedmodel_structure import structure

        return structure(path, source)


def session(path: Path, threads: int = 1) -> Session | None:
    """Load the file in TensorFlow, in a process of its own (see `_savedmodel_run`).

    Raises:
        BadInput: as `read`, or TensorFlow refuses it, or it could do more than compute.
        MissingComponent: tensorflow is not installed.
    """
    from edgeres.targets._savedmodel_read import runnable
    from edgeres.targets._savedmodel_run import Child

    read(path)  # says what is wrong with a file in one sentence
    runnable(path)
    return Child(path, threads)


def tracer(path: Path) -> Tracer | None:  # noqa: ARG001
    """None: only integer files are checked layer by layer."""
    return None
