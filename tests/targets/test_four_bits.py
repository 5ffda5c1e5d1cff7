"""Files with 4-bit weights: the codes are those of the network, in half of the bytes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images, needs, network

from edgeres import targets
from edgeres.compression import bits, ptq
from edgeres.compression.integers import integer_graph
from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.recipe import VerifySection
from edgeres.targets._four_bits import packed
from edgeres.training.inference import prepared
from edgeres.types import ExportedFile, ScaleTable
from edgeres.verification import selftest
from edgeres.verification.certificate import Reference
from edgeres.verification.scales import audit
from edgeres.verification.structure import mismatches

INT4 = tuple(name for name in targets.names() if name.endswith("-int4"))
METADATA = {"edgeres.origin": "test", "edgeres.labels": "a\nb", "edgeres.preprocess": "[0.5]"}


@pytest.fixture(scope="module")
def made() -> tuple:
    """A folded network, its scales, images, and what its integer graph answers to them."""
    folded, scales = ptq.quantize(network("resnet20-A", 32), images(32, 32), scheme="w4a8")
    x = prepared(images(64, 32, seed=3), folded.spec.preprocess).contiguous()
    with torch.no_grad():
        return folded, scales, x.numpy(), integer_graph(folded, scales)(x).numpy()


@pytest.fixture(scope="module", autouse=True)
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Files that several tests look at are written once, and copied for each."""
    global _KEPT
    _KEPT = (tmp_path_factory.mktemp("kept"), {})
    yield
    _KEPT = None


_KEPT: tuple[Path, dict] | None = None


def written(name: str, folded: torch.nn.Module, scales: ScaleTable, folder: Path) -> tuple:
    assert _KEPT is not None
    place, known = _KEPT
    target, precision = targets.load(name)
    key = (name, id(folded), id(scales))
    if key not in known:
        path = place / f"{len(known)}{target.SUFFIX}"
        ends = target.export(targets.Source(folded, scales, METADATA), precision, path)
        known[key] = (path, ends, folded, scales)  # whose ids are then nobody else's
    first, ends, *_ = known[key]
    path = folder / f"{name}{target.SUFFIX}"
    (shutil.copytree if first.is_dir() else shutil.copyfile)(first, path)
    return path, *ends


def answered(name: str, made: tuple, folder: Path) -> np.ndarray:
    folded, scales, x, _ = made
    path, first, last = written(name, folded, scales, folder)
    return targets.decode(targets.load(name)[0].session(path).run(targets.encode(x, first)), last)


@pytest.mark.parametrize("name", ["qoperator-int4", "onnx-int8", "qoperator-int8", "tflite-int8"])
def test_integer_kernels_give_the_networks_codes(name: str, made: tuple, tmp_path: Path) -> None:
    """Also those that hold the same codes in 8 bits."""
    assert np.array_equal(answered(name, made, tmp_path), made[3])


def test_onnxruntime_folds_the_casts_away_and_computes_in_integers(
    made: tuple, tmp_path: Path
) -> None:
    path, first, last = written("qoperator-int4", *made[:2], tmp_path)
    onnx_target, _ = targets.load("onnx-int8")
    operators = onnx_target.read(path).operators()  # as its optimizer leaves it
    assert "Cast" not in operators
    assert operators["QLinearConv"] == 21
    session = onnx_target.session(path)
    assert np.array_equal(
        targets.decode(session.run(targets.encode(made[2], first)), last), made[3]
    )


def test_a_float_kernel_turns_hardly_a_code(made: tuple, tmp_path: Path) -> None:
    """onnxruntime computes 4-bit layers of Q/DQ files in float32, and the reader says so."""
    step = made[1]["fc"].scale[0]
    difference = np.abs(answered("onnx-int4", made, tmp_path) - made[3])
    assert (difference < step / 2).mean() > 0.95
    graph = targets.load("onnx-int4")[0].read(tmp_path / "onnx-int4.onnx")
    assert len(graph.float_operators()) == len(graph.four_bits()) == 20
    assert graph.integer_share()["macs"] < 0.1


def test_litert_unpacks_them_for_its_own_kernels(made: tuple, tmp_path: Path) -> None:
    """Which round twice: the same codes as of an int8 file without XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    answers = []
    for name in ("tflite-int4", "tflite-int8"):
        path, first, _ = written(name, *made[:2], tmp_path)
        interpreter = Interpreter(
            str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        codes = []
        for image in targets.encode(made[2][:16], first):
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
            interpreter.invoke()
            codes.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
        answers.append(np.stack(codes))
    assert np.array_equal(*answers)


@pytest.mark.parametrize("name", INT4)
def test_what_is_stored_is_counted(name: str, made: tuple, tmp_path: Path) -> None:
    folded, scales, *_ = made
    graph = targets.load(name)[0].read(written(name, folded, scales, tmp_path)[0])
    assert graph.precision() == "int4"
    four = {layer for layer, count in bits.of(scales).items() if count == 4}
    assert len(graph.four_bits()) == len(four)
    state = folded.state_dict()
    codes = sum(state[f"{layer}.weight"].numel() for layer in four)
    whole = sum(value.numel() for key, value in state.items() if key.endswith(".weight"))
    floats = 4 * sum(len(p.scale) for k, p in scales.items() if k.endswith(".weight"))
    found = sum(op.constant_bytes for op in graph.ops)
    assert whole - codes / 2 < found < whole - codes / 2 + 3 * floats
    eight = written(name.replace("int4", "int8"), folded, scales, tmp_path)[0]
    saved = eight.stat().st_size - (tmp_path / graph_file(name)).stat().st_size
    assert abs(saved - codes / 2) < 0.06 * codes


def graph_file(name: str) -> str:
    return f"{name}{targets.load(name)[0].SUFFIX}"


@pytest.mark.parametrize("name", INT4)
def test_bits_that_are_not_the_tables_are_refused(name: str, made: tuple, tmp_path: Path) -> None:
    """8-bit storage, where the table says 4, and the other way round."""
    folded, scales, *_ = made
    target, precision = targets.load(name)
    path, *_ = written(name, folded, scales, tmp_path)
    layer = "layer1.0.conv1.weight"
    other = scales | {layer: dataclasses.replace(scales[layer], dtype="int8")}
    source = targets.Source(folded, other, METADATA)
    said, *_ = mismatches(target.structure(path, source, precision), folded, other, precision)
    assert "its weights are stored as int4, not int8" in said
    wide = tmp_path / f"wide{target.SUFFIX}"
    target.export(source, precision, wide)
    source = targets.Source(folded, scales, METADATA)
    said, *_ = mismatches(target.structure(wide, source, precision), folded, scales, precision)
    assert "its weights are stored as int8, not int4" in said


@pytest.mark.parametrize("name", INT4)
def test_planted_faults_are_caught(name: str, four_bits: tuple, tmp_path: Path) -> None:
    _, folded, scales = four_bits
    path, first, last = written(name, folded, scales, tmp_path)
    exported = ExportedFile(name, path.name, file_sha256(path), path.stat().st_size, first, last)
    shown = images(16, seed=3)
    with torch.no_grad():
        x = prepared(shown, folded.spec.preprocess)
        answers = integer_graph(folded, scales)(x).numpy()
    reference = Reference(folded, scales, answers, answers, shown,
                          torch.from_numpy(answers.argmax(1)), METADATA)  # fmt: skip
    trials = [*selftest.try_all(path, exported, reference, VerifySection(), lambda *_: None)]
    assert [trial.fault for trial in trials if trial.planted and not trial.caught] == []
    planted = {trial.fault for trial in trials if trial.planted}
    assert {"two channels swapped", "a weight tensor transposed"} <= planted


EIGHT = [name for name in targets.names() if targets.is_integer(name.split("-")[1])
         and name not in INT4 and not targets.compiled(name)]  # fmt: skip


@pytest.mark.parametrize("name", EIGHT)
def test_who_has_no_int4_stores_the_same_codes_in_8_bits(
    name: str, four_bits: tuple, tmp_path: Path
) -> None:
    target, precision = targets.load(name)
    needs(target.PACKAGE)
    _, folded, trained = four_bits
    scales = targets.scales_for(name, trained)
    assert targets.stored_in_8_bits(name, scales) == 8
    path, *_ = written(name, folded, scales, tmp_path)
    graph = target.read(path)
    assert graph.four_bits() == []
    assert audit(graph, folded, scales).differing == ()
    source = targets.Source(folded, scales, METADATA)
    assert mismatches(target.structure(path, source, precision), folded, scales, precision) == ()


def test_a_file_says_what_it_needs(four_bits: tuple, tmp_path: Path) -> None:
    needed = {"onnx-int4": "onnxruntime 1.18", "qoperator-int4": "onnxruntime 1.18",
              "tflite-int4": "TensorFlow Lite 2.11"}  # fmt: skip
    assert set(needed) == set(INT4)
    for name, requires in needed.items():
        path, *_ = written(name, *four_bits[1:], tmp_path)
        assert targets.load(name)[0].read(path).requires == requires


def test_schemes_and_targets_have_to_fit() -> None:
    for name in INT4:
        targets.require_scheme(name, "w4a8")
        with pytest.raises(BadInput, match=f"'{name}' stores weights of 4 bits.* use .*-int8"):
            targets.require_scheme(name, "w8a8")
    with pytest.raises(BadInput, match="has no 16-bit activations"):
        targets.require_scheme("tflite-int4", "w8a16")


def test_packing_has_the_first_code_below_and_ends_in_zeros() -> None:
    assert packed(np.array([1, -1, 7, -7, -8], np.int8)) == bytes([0xF1, 0x97, 0x08])
