"""ExecuTorch programs for PyTorch's runtime on phones and boards; NCHW, batch 1, float32 ends.

XNNPACK takes the whole network as one delegate: it quantizes the float32 input, computes in int8,
and dequantizes the logits. The kernels are the same on Arm and x86, so what runs here is what a
device runs, up to the instruction set.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.errors import EdgeresError
from edgeres.quiet import quiet
from edgeres.targets import Session, Source, Tracer, _schemes, require
from edgeres.targets._graph import FileGraph
from edgeres.targets._structure import Structure
from edgeres.types import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from executorch.runtime import Method
    from torch import nn
    from torch.export import ExportedProgram

SUMMARY = "ExecuTorch: Android, iOS, Linux"
PRECISIONS = ("fp32", "int8")
SUFFIX = ".pte"
PACKAGE = "executorch"
EXTRA = "executorch"
RUNTIME = "ExecuTorch"
SCHEMES = {"int8": _schemes.as_trained}


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .pte file whose network is one XNNPACK delegate; float32 input and output.

    Each note of `Source.metadata` becomes a method of that name that returns the text, which is
    how an app reads it.
    """
    require(f"executorch-{precision}")
    with quiet(f"writing {path.name} with executorch"):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = to_edge_transform_and_lower(
            _exported(source, precision),
            partitioner=[XnnpackPartitioner()],
            constant_methods=dict(sorted(source.metadata.items())),
        )
        path.write_bytes(program.to_executorch().buffer)
    graph = read(path)
    return graph.input, graph.output


def read(path: Path) -> FileGraph:
    """Read the program and its XNNPACK graphs; what XNNPACK doesn't take appears beside them.

    Raises:
        BadInput: not an ExecuTorch program, damaged, delegated to anything but XNNPACK, or not of
            one input and one output.
        MissingComponent: executorch is not installed.
    """
    require("executorch-int8")
    from edgeres.targets._executorch_read import graph

    with quiet(f"reading {path.name}"):
        return graph(path)


def structure(path: Path, source: Source, precision: str) -> Structure:
    """The file's own program, each operation as it is stored, and what else it holds.

    Args:
        source: what it must have been written from: its notes say that.

    Raises:
        BadInput, MissingComponent: as `read`.
    """
    require("executorch-int8")
    from edgeres.targets._executorch_structure import structure

    with quiet(f"reading {path.name}"):
        return structure(path, source, precision)


def session(path: Path, threads: int = 1) -> Session | None:  # noqa: ARG001
    """Load the file in ExecuTorch's own runtime.

    Args:
        threads: not obeyed. ExecuTorch has one pool of threads in a process, and changing it ends
            the process if a network is loaded.

    Raises:
        BadInput, MissingComponent: as `read`.
    """
    read(path)  # says what is wrong with a file in one sentence
    with quiet(f"loading {path.name} in executorch"):
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(path).load_method("forward")
        if method is None:
            raise EdgeresError(f"{path}: executorch didn't load it")
        return _Session(method)


def tracer(path: Path) -> Tracer | None:  # noqa: ARG001
    """None: a delegate hides its tensors."""
    return None


class _Session:
    """A loaded method, which takes one image at a time."""

    def __init__(self, method: Method):
        self.method = method

    def run(self, images: np.ndarray) -> np.ndarray:
        import numpy as np
        import torch

        rows = torch.from_numpy(np.ascontiguousarray(images)).split(1)
        return np.concatenate([self.method.execute([row])[0].numpy() for row in rows])


def _exported(source: Source, precision: str) -> ExportedProgram:
    """The network or its quantized graph, at batch 1."""
    import torch

    network: nn.Module = source.model
    if precision == "int8":
        from edgeres.compression.graph import quantized_graph

        assert source.scales is not None
        network = quantized_graph(source.model, source.scales, fold_weights=True)
    px = source.model.spec.preprocess.size_px
    return torch.export.export(network, (torch.zeros(1, 3, px, px),))
