"""Which networks run on which runtimes: int8 files of torchvision's and timm's networks, asked.

    python benchmarks/runtime_matrix.py [--images N] [--on RUNTIME,RUNTIME] [NETWORK ...]

Untrained, with batch statistics of soft blots of colour, 64 px, as `make test-matrix` has them: a
coarse measure of agreement, a fine one of what is taken and refused. Needs the folder of networks'
code that `make test-matrix` makes. Prints a Markdown table, a row per network as it is done, then
what was refused and why.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch

from edgeres import targets
from edgeres.compression import integers, ptq
from edgeres.disk import file_sha256
from edgeres.errors import EdgeresError
from edgeres.runtimes._asking import ask
from edgeres.training.inference import prepared
from edgeres.types import ExportedFile
from edgeres.verification.certificate import Reference
from edgeres.verification.runtimes import Verdict, fits, weigh

ON = "litert-builtin,tflm,openvino,ethos-u55-128,qnn-htp"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    """See the module."""
    from beds.zoo import zoo
    from e2e import test_zoo

    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=test_zoo.NETWORKS)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--on", default=ON)
    given = parser.parse_args()
    names = given.on.split(",")
    said: dict[str, list[str]] = {}
    print("| network |", " | ".join(names), "|")
    print("|---" * (1 + len(names)) + "|", flush=True)
    with contextmanager(zoo.__wrapped__)():
        for name in given.networks:
            cells = _row(name, names, given.images, said)
            print(f"| `{name}` |", " | ".join(cells), "|", flush=True)
    for why, networks in said.items():
        print(f"- {why}: {', '.join(networks)}")


def _row(name: str, names: list[str], n: int, said: dict[str, list[str]]) -> list[str]:
    from e2e import test_zoo

    model = test_zoo.built(name)
    data = test_zoo.images()
    folded, scales = ptq.quantize(model, data.images[:64])
    cells = dict.fromkeys(names, "-")
    with tempfile.TemporaryDirectory() as folder:
        for target in ("tflite-int8", "onnx-int8"):
            module, precision = targets.load(target)
            own = targets.scales_for(target, scales)
            path = Path(folder, f"m{module.SUFFIX}")
            ends = module.export(targets.Source(folded, own), precision, path)
            exported = ExportedFile(target, path.name, file_sha256(path), 0, *ends)
            x = prepared(data.images[:n], folded.spec.preprocess)
            with torch.no_grad():
                expected = integers.integer_graph(folded, own)(x).numpy()
            reference = Reference(folded, own, expected, expected, data.images[:n],
                                  torch.from_numpy(expected.argmax(1)))  # fmt: skip
            for other in names:
                if cells[other] == "-" and fits(other, target):
                    given = targets.encode(x.contiguous().numpy(), exported.input)
                    with tempfile.TemporaryDirectory() as asked:
                        (answer,) = ask(other, [(path, given)], Path(asked))
                    found = weigh(other, exported, reference, n, answer)
                    cells[other] = _cell(found)
                    for why in [found.answer.error, *found.answer.refused]:
                        if why:
                            said.setdefault(f"{other}: {_kind(why)}", [])
                            if name not in said[f"{other}: {_kind(why)}"]:
                                said[f"{other}: {_kind(why)}"].append(name)
    return [cells[other] for other in names]


def _cell(found: Verdict) -> str:
    if found.answer.error:
        return "no answer"
    parts = []
    if found.answer.refused:
        parts.append(f"{len(found.answer.refused)} not taken")
    if found.parity is not None:
        parts.append(f"{found.parity.agreement:.0%}, {found.parity.worst:.0f}")
    if found.answer.cycles is not None:
        parts.append(f"{found.answer.cycles / 1e6:.2f} M cycles")
    return "; ".join(parts)


def _kind(why: str) -> str:
    """A sentence without the layer's own name."""
    operator, _, reason = why.partition(": ")
    return f"{operator.split()[0]}: {reason}"[:160] if reason else why[:160]


if __name__ == "__main__":
    try:
        main()
    except EdgeresError as error:
        sys.exit(str(error))
