"""What a bundle for TFLite Micro has besides: the file as C arrays, its operators and its arena.

`sample/main.cc` is compiled with what is written here. The arena's size and the expected outputs
are TFLite Micro's own where that runtime is installed (edgeres/runtimes); where it isn't, they are
guesses, which a note and the files themselves say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import runtimes, scratch, targets
from edgeres.bundle import golden
from edgeres.bundle.archive import Contents
from edgeres.disk import read_bounded
from edgeres.errors import BadInput
from edgeres.runtimes._asking import Answer, ask

if TYPE_CHECKING:
    import numpy as np

KIND, FOLDER = "microcontroller", "sample"
_MODEL, _OPS, _ARENA, _GOLDEN = "model_data.cc", "model_ops.h", "arena.h", "golden_data.cc"
_UNMEASURED = 128 * 1024  # bytes of arena
_MOST_GOLDEN = 64 * 1024  # bytes of inputs in flash
_MOST_MODEL = 16 * 1024**2  # more than any microcontroller's flash
# MicroMutableOpResolver's methods (tflite-micro, 2026-08-20), without its signal operators
_METHODS = (
    "Abs Add AddN ArgMax ArgMin AveragePool2D BatchMatMul BatchToSpaceNd BroadcastTo Cast Ceil "
    "Concatenation Conv2D Cos CumSum DepthToSpace DepthwiseConv2D Dequantize Div Elu Equal Exp "
    "ExpandDims Fill Floor FloorDiv FloorMod FullyConnected Gather GatherNd Greater GreaterEqual "
    "HardSwish L2Normalization L2Pool2D LeakyRelu Less LessEqual Log LogSoftmax LogicalAnd "
    "LogicalNot LogicalOr Logistic MaxPool2D Maximum Mean Minimum MirrorPad Mul Neg NotEqual Pack "
    "Pad PadV2 Prelu Quantize ReduceAll ReduceMax ReduceMin Relu Relu6 Reshape ResizeBilinear "
    "ResizeNearestNeighbor ReverseV2 Round Rsqrt SelectV2 Shape Sin Slice Softmax SpaceToBatchNd "
    "SpaceToDepth Split SplitV Sqrt Square SquaredDifference Squeeze StridedSlice Sub Sum Tanh "
    "Transpose TransposeConv Unpack ZerosLike"
)
_BY_NAME = {name.lower(): name for name in _METHODS.split()}


def write(folder: Path, model: Path) -> list[str]:
    """Write the sample's C files into a bundle's folder, which has the model and `golden/`.

    Returns:
        What had to be guessed, a sentence each.

    Raises:
        BadInput: TFLite Micro has no such operator or refuses the file, or it is too large.
    """
    import numpy as np

    place, target = folder / FOLDER, targets.of_file(model)[1]
    inputs, expected = (np.load(folder / golden.FOLDER / f"{name}.npy", allow_pickle=False)
                        for name in ("inputs", "outputs"))  # fmt: skip
    inputs = inputs[: max(1, _MOST_GOLDEN // inputs[0].nbytes)]
    answer, why = _asked(model, inputs)
    allowed = golden.tolerance(str(expected.dtype))
    if answer is None:
        by = "LiteRT, not TFLite Micro, whose kernels round otherwise"
        allowed = _allowed(expected)
        arena, said = _UNMEASURED, f"NOT MEASURED ({why}): main.cc prints what is used"
    else:
        _require_like(model, answer.outputs, expected[: len(inputs)])
        expected, by = answer.outputs, f"TFLite Micro's reference kernels ({answer.version})"
        used = answer.memory_bytes["arena"]
        arena = -(-used * 5 // 4 // 1024) * 1024
        said = (f"{used} bytes were used by {answer.version} on x86-64 with reference kernels; a "
                "quarter more, for others' scratch buffers")  # fmt: skip
    for name, text in (
        (_MODEL, _array(model)), (_OPS, _ops(target.read(model).operators())),
        (_ARENA, f"#pragma once\n// {said}\nconstexpr int kArenaBytes = {arena};\n"),
        (_GOLDEN, _golden(inputs, expected[: len(inputs)], allowed, by)),
    ):  # fmt: skip
        (place / name).write_text(text, "utf-8")
    return [] if answer is not None else [
        f"the arena's size isn't measured and the expected outputs aren't TFLite Micro's ({why})"
    ]  # fmt: skip


def findings(contents: Contents, model: Path, operators: Iterable[str]) -> Iterator[str]:
    """Where a bundle's C files aren't those of its model.

    Args:
        operators: of the model, by TFLite's names.
    """
    wanted = {_MODEL: _array(model), _OPS: _ops(operators)}
    own = Path(__file__).parent / "samples" / KIND
    wanted |= {path.name: path.read_text("utf-8") for path in own.iterdir()
               if path.is_file() and path.suffix != ".md"}  # fmt: skip
    for name, text in wanted.items():
        where = f"{FOLDER}/{name}"
        if where not in contents.files or contents.read(where, 2 * len(text)) != text.encode():
            yield f"{where} isn't what edgeres writes for the model"


def _allowed(certified: np.ndarray) -> float:
    """How many codes TFLite Micro may be away; one of 16 bits is a small part of one of 8."""
    from edgeres.verification.gates import FINER

    finer = FINER["int16x8"] if certified.itemsize == 2 else 1
    return runtimes.load("tflm").LIMITS["worst_codes"] * finer


def _require_like(model: Path, theirs: np.ndarray | None, certified: np.ndarray) -> None:
    """Refuse answers that aren't the certified ones but for rounding."""
    assert theirs is not None
    limit = _allowed(certified)
    away = abs(theirs.reshape(certified.shape).astype(int) - certified.astype(int)).max()
    if away > limit:
        raise BadInput(f"{model.name}: TFLite Micro's answers are up to {away} codes from the "
                       f"certified ones, more than {limit:g}; edgeres verify RUN --on tflm says "
                       "where they depart")  # fmt: skip


def _asked(model: Path, inputs: np.ndarray) -> tuple[Answer | None, str]:
    """What TFLite Micro says of the file, or why it can't be asked here."""
    if why := runtimes.missing("tflm"):
        return None, why
    with scratch.folder("tflm") as place:
        (answer,) = ask("tflm", [(model, inputs)], place)
    if answer.refused or answer.error:
        said = "; ".join(answer.refused) or answer.error
        raise BadInput(f"{model.name}: TFLite Micro refuses it: {said}")
    if answer.outputs is None or "arena" not in answer.memory_bytes:
        return None, f"{answer.version} doesn't say it"
    return answer, ""


def _array(model: Path) -> str:
    """The file as C++: TFLite Micro reads it in place, so it has to be aligned."""
    data = read_bounded(model, _MOST_MODEL, "model for a microcontroller")
    return f"""#include "model_data.h"

alignas(16) const unsigned char kModel[{len(data)}] = {{
{_numbers(data)}}};
const unsigned int kModelBytes = {len(data)};
"""


def _ops(operators: Iterable[str]) -> str:
    kinds = sorted(operators)
    methods = {kind: _BY_NAME.get(kind.replace("_", "").lower()) for kind in kinds}
    if unknown := [kind for kind, method in methods.items() if method is None]:
        raise BadInput(f"TFLite Micro has no operator {', '.join(unknown)[:200]}")
    calls = "".join(f"  TF_LITE_ENSURE_STATUS(ops.Add{methods[kind]}());\n" for kind in kinds)
    return f"""#pragma once
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

using ModelOps = tflite::MicroMutableOpResolver<{len(kinds)}>;

inline TfLiteStatus AddModelOps(ModelOps& ops) {{
{calls}  return kTfLiteOk;
}}
"""


def _golden(inputs: np.ndarray, outputs: np.ndarray, allowed: float, by: str) -> str:
    return f"""#include "golden_data.h"

// The outputs were made by: {by}
const int kGoldenSamples = {len(inputs)}, kGoldenInputBytes = {inputs[0].nbytes};
const int kGoldenClasses = {outputs[0].size}, kGoldenTolerance = {int(allowed)};
const unsigned char kGoldenInputs[] = {{
{_numbers(inputs.tobytes())}}};
const int kGoldenOutputs[] = {{
{_numbers(outputs.ravel().tolist())}}};
"""


def _numbers(values: Sequence[int]) -> str:
    rows = (values[i : i + 20] for i in range(0, len(values), 20))
    return "".join(",".join(map(str, row)) + ",\n" for row in rows)
