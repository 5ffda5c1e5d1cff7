"""A bundle whose sums are right and whose promises aren't fails, and the finding names what."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beds.bundles import edited, forged, mended, zipped

from edgeres import bundle, contract
from edgeres.bundle import card, certified, checking, documents
from edgeres.errors import BadInput, EdgeresError
from edgeres.targets._conversion import examine
from edgeres.types import Preprocess, Resize, tensor_spec

Files = Mapping[str, bytes]
GOLDEN, CERTIFICATE = "golden/golden.json", "certificate.json"
pytestmark = pytest.mark.usefixtures("own_config")


def check(files: Files, folder: Path) -> dict[str, Any]:
    zipped(files, folder / "b.zip")
    return checking.check(folder / "b.zip")


def findings(files: Files, folder: Path) -> list[str]:
    """What is wrong, whether it is said as a finding or refused."""
    found: list[str] = []
    try:
        found += check(files, folder)["findings"]
    except BadInput as error:
        found.append(str(error))
    assert not any("\n" in f for f in found)
    return found


def test_the_good_one_passes_as_archive_and_as_folder(good_bundle: Files, tmp_path: Path) -> None:
    for name, data in good_bundle.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    for result in (check(good_bundle, tmp_path), checking.check(tmp_path / "folder")):
        assert (result["passed"], result["findings"], result["signature"]) == (True, [], "none")
        assert result["golden"]["worst"] == 0 and result["golden"]["samples"] == bundle.GOLDEN
    assert check(mended(good_bundle, manifest=good_bundle["manifest.json"]), tmp_path)["passed"]


@pytest.mark.parametrize("name", bundle.REQUIRED)
def test_nothing_that_a_bundle_holds_may_be_left_out(
    name: str, good_bundle: Files, tmp_path: Path
) -> None:
    assert findings(forged(good_bundle, name, None), tmp_path) == [
        f"{name} is missing from the manifest"
    ]


def model_of(files: Files) -> str:
    (name,) = (n for n in files if n.startswith("model/"))
    return name


def test_a_bundle_without_its_model(good_bundle: Files, tmp_path: Path) -> None:
    found = findings(forged(good_bundle, model_of(good_bundle), None), tmp_path)
    assert found == [f"the certificate is about {model_of(good_bundle)}, which isn't there"]


@pytest.mark.parametrize("name", ["extra.so", "model/second.onnx", "golden/more.npy", "numpy.py"])
def test_nothing_else_may_be_in_it(name: str, good_bundle: Files, tmp_path: Path) -> None:
    assert findings(forged(good_bundle, name, b"x"), tmp_path) == [f"{name} is no part of a bundle"]


@pytest.mark.parametrize(
    "name", ["manifest.json", CERTIFICATE, GOLDEN, "preprocess.json", "sbom.json"]
)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b"1" * 5000,
        b'{"schema": 2, "schema": 2}',
    ],
    ids=["empty", "list", "null", "nothing", "bytes", "deep", "long", "twice"],
)
def test_documents_that_are_none(
    name: str, data: bytes, good_bundle: Files, tmp_path: Path
) -> None:
    files = (
        {**good_bundle, name: data} if name == "manifest.json" else forged(good_bundle, name, data)
    )
    assert name in findings(files, tmp_path)[0]


def gate(name: str, **values: Any) -> Callable[[dict], None]:
    """Change one gate of every file's certificate."""

    def change(document: dict) -> None:
        for row in document["files"]:
            for g in row["gates"]:
                g.update(values if g["name"] == name else {})

    return change


def without(name: str) -> Callable[[dict], None]:
    def change(document: dict) -> None:
        for row in document["files"]:
            row["gates"] = [g for g in row["gates"] if g["name"] != name]

    return change


def onnx(document: dict) -> dict:
    return next(row for row in document["files"] if row["target"] == "onnx-int8")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (gate("worst difference", measured=256.0), "gate is not met: worst difference 256"),
        (gate("worst difference", measured=float("nan")), "gate is not met: worst difference nan"),
        (gate("worst difference", limit=float("inf")), "certificate.json: files"),
        (gate("float operators", measured=3, limit=3), "'float operators' asks something else"),
        (gate("top-1 agreement", comparison="<="), "'top-1 agreement' asks something else"),
        (without("top-1 agreement"), "lacks the gate 'top-1 agreement'"),
        (without("parts that are not the network's"), "lacks the gate 'parts that are not"),
        (without("scales that differ from training"), "lacks the gate 'scales that differ"),
        (without("file unchanged since export"), "lacks the gate 'file unchanged"),
        (lambda d: onnx(d)["file"].update(sha256="0" * 64), "about another file"),
        (lambda d: onnx(d)["file"].update(file="../x.onnx"), "isn't there"),
        (lambda d: onnx(d).update(target="onnx-fp32"), "says nothing of onnx-int8, or several"),
        (lambda d: d["files"].append(onnx(d)), "says nothing of onnx-int8, or several"),
        (lambda d: d.update(files=[]), "certificate.json: files"),
        (lambda d: onnx(d)["gates"].clear(), "certificate.json: files"),
        (lambda d: d.update(schema=1), "certificate.json: schema"),
    ],
)  # fmt: skip
def test_certificates_are_judged_again(
    change: Callable[[dict], None], says: str, good_bundle: Files, tmp_path: Path
) -> None:
    found = findings(edited(good_bundle, CERTIFICATE, change), tmp_path)
    assert any(says in f for f in found), found


def test_another_model_under_the_same_certificate(good_bundle: Files, tmp_path: Path) -> None:
    """One bit of a weight: sums mended, golden outputs still within the tolerance."""
    name, data = model_of(good_bundle), bytearray(good_bundle[model_of(good_bundle)])
    data[len(data) // 2] ^= 1
    found = findings(forged(good_bundle, name, bytes(data)), tmp_path)
    assert found[0] == f"the certificate is about another file than {name}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(tolerance=1e9), "allows 1e+09, and edgeres at most 3"),
        (lambda d: d.update(tolerance=float("inf")), "golden.json: tolerance"),
        (lambda d: d.update(samples=1), "has 1 samples in place of 8"),
        (lambda d: d.update(model="model/other.onnx"), "about another file"),
        (lambda d: d.update(model="../../../bin/sh"), "about another file"),
        (lambda d: d["output"].update(shape=[1]), "outputs are of another shape"),
        (lambda d: d["input"].update(dtype="float32"), "inputs are of another shape or type"),
        (lambda d: d["input"].update(dtype="object"), "golden.json: input.dtype"),
    ],
)
def test_golden_tests_that_prove_less(
    change: Callable[[dict], None], says: str, good_bundle: Files, tmp_path: Path
) -> None:
    assert any(says in f for f in findings(edited(good_bundle, GOLDEN, change), tmp_path))


def arrays(files: Files, name: str, folder: Path, values: np.ndarray) -> Files:
    np.save(folder / "a.npy", values)
    files = forged(files, f"golden/{name}.npy", (folder / "a.npy").read_bytes())
    return forged(files, f"golden/{name}.bin", values.tobytes())


def test_golden_arrays_that_prove_nothing(good_bundle: Files, tmp_path: Path) -> None:
    document = json.loads(good_bundle[GOLDEN])
    shape = (bundle.GOLDEN, *document["input"]["shape"])
    inputs = np.frombuffer(good_bundle["golden/inputs.bin"], document["input"]["dtype"])
    inputs = inputs.reshape(shape)
    same = arrays(good_bundle, "inputs", tmp_path, np.repeat(inputs[:1], bundle.GOLDEN, 0))
    assert findings(same, tmp_path) == ["the golden inputs are all the same"]
    other = arrays(good_bundle, "inputs", tmp_path, inputs[::-1].copy())
    assert findings(other, tmp_path)[0].startswith("golden test: worst difference")
    fewer = arrays(good_bundle, "inputs", tmp_path, inputs[:2])
    assert "another shape or type than golden.json says" in findings(fewer, tmp_path)[0]
    two = forged(good_bundle, "golden/inputs.bin", inputs[::-1].tobytes())
    assert "hold different values" in findings(two, tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("labels.txt", lambda d: d + b"one more\n", "labels.txt names"),
        ("labels.txt", lambda d: b"", "labels.txt names 0 classes"),
        ("labels.txt", lambda d: b"\xff" + d, "labels.txt: not UTF-8"),
        ("labels.txt", lambda d: d[d.index(b"\n") + 1 :] + d[: d.index(b"\n") + 1],
         "labels.txt has other names than the model file"),
        ("preprocess.json", lambda d: d.replace(b"0.5", b"0.4"), "preprocess.json has other"),
        ("preprocess.json", lambda d: d.replace(b"0.5", b"NaN"), "preprocess.json: "),
        ("sbom.json", lambda d: d.replace(b'"content": "', b'"content": "0'), "sbom.json is"),
        ("MODEL_CARD.md", lambda d: d + b"<script>alert(1)</script>", "MODEL_CARD.md holds HTML"),
        ("MODEL_CARD.md", lambda d: b"# A good model", "MODEL_CARD.md is about another file"),
        ("MODEL_CARD.md", lambda d: d * 10_000, "larger than"),
    ],
)  # fmt: skip
def test_texts_about_another_model(
    name: str, change: Callable[[bytes], bytes], says: str, good_bundle: Files, tmp_path: Path
) -> None:
    changed = change(good_bundle[name])
    assert changed != good_bundle[name]
    assert says in findings(forged(good_bundle, name, changed), tmp_path)[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"created": "yesterday"}, "manifest.json: created"),
        ({"created": "2026-02-30T00:00:00Z"}, "manifest.json: created"),
        ({"serial": 0}, "manifest.json: serial"),
        ({"serial": 1e99}, "manifest.json: serial"),
        ({"serial": "1"}, "manifest.json: serial"),
        ({"target": "coreml-int8"}, "no bundle for 'web-service' has a file of 'coreml-int8'"),
        ({"for": "toasters"}, "no bundle for 'toasters'"),
        ({"signer": "AAAA"}, "not an Ed25519 public key"),
        ({"signer": base64.b64encode(b"x" * 44).decode()}, "not an Ed25519 public key"),
        ({"more": 1}, "manifest.json: more"),
        ({"run": "a\nUNSIGNED"}, "manifest.json: run: Value error, has control characters"),
        ({"edgeres": "\x1b[2K"}, "manifest.json: edgeres"),
        ({"schema": 1}, "schema 1 is another edgeres version's"),
        ({"name": ""}, "manifest.json: name"),
    ],
)
def test_manifests_with_other_things(
    change: dict, says: str, good_bundle: Files, tmp_path: Path
) -> None:
    (found,) = findings(
        mended(good_bundle, manifest=good_bundle["manifest.json"], **change), tmp_path
    )
    assert says in found


def test_hundreds_of_changes_in_the_documents(good_bundle: Files, tmp_path: Path) -> None:
    """Each is taken or refused in a sentence; none of them reaches a runtime unless all holds."""
    import mutate

    names = [n for n in good_bundle if n.endswith((".json", ".txt", ".md", ".npy"))]
    rng = random.Random(19)
    for _ in range(200):
        name = rng.choice(names)
        change = mutate.mutated_json if name.endswith(".json") else mutate.mutated
        data = change(good_bundle[name], rng)
        files = (
            {**good_bundle, name: data}
            if name == "manifest.json"
            else forged(good_bundle, name, data)
        )
        zipped(files, tmp_path / "b.zip")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checking.golden, "run", lambda *_: (None, []))
            patch.setattr(checking, "_of_itself", lambda *_: [])
            try:
                result = checking.check(tmp_path / "b.zip")
            except EdgeresError:
                continue
        if result["passed"] and name == CERTIFICATE:
            document = documents.parsed(documents.Certificate, data, name)
            row = certified.row_of(document, result["target"])
            assert row and f"model/{row.file.file}" == model_of(good_bundle)


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))",
     "![](http://127.0.0.1/x.png)", "`code`", "**bold**", "a | b | c", "# heading\n## more",
     "~~no~~", "https://example.com", "www.example.com", "a@example.com", "\u202ereversed",
     "&lt;b&gt;", "\x1b[31mred", "$x$", "<!-- ", "x" * 5000],
)  # fmt: skip
def test_a_card_shows_names_as_they_are(text: str) -> None:
    shown = card.escaped(text)
    assert not set("<>\n\x1b\u202e") & set(shown)
    assert len(shown) <= 5 * 200
    active = [c for i, c in enumerate(shown) if c in "`*[]()#!|~@$:" and shown[i - 1] != "\\"]
    assert not active, shown
    assert "www.e" not in shown and "&lt;b" not in shown.replace("&amp;lt;b", "")


@pytest.fixture(scope="module")
def with_contract(good_bundle: Files, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A bundle whose preprocess.json is a whole contract, as the export stage writes it."""
    (name,) = (n for n in good_bundle if n.startswith("model/"))
    model = tmp_path_factory.mktemp("model") / Path(name).name
    model.write_bytes(good_bundle[name])
    numbers = json.loads(good_bundle["preprocess.json"])
    prepared = Preprocess(numbers["size_px"], tuple(numbers["mean"]), tuple(numbers["std"]))
    labels = good_bundle["labels.txt"].decode().splitlines()
    takes = tensor_spec(examine(model)["input"])
    document = contract.whole(prepared, Resize.of(numbers["size_px"]), takes, labels)
    return forged(good_bundle, "preprocess.json", json.dumps(document).encode())


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("zero_point", 1, "zero_point isn't that of this model"),
        ("layout", "CHWN", "layout isn't"),
        ("channels", "BGR", "channels isn't"),
        ("code", ["import os; os.remove('x')"], "code isn't that of this model"),
        ("formula", "pixel", "formula isn't"),
        ("labels", ["a"], "labels isn't"),
        ("more", 1, "more isn't"),
        ("resize", {"size_px": 8, "short_side_px": 9, "crop": "x; import os",
                    "interpolation": "box"}, "preprocess.json: "),
    ],
)  # fmt: skip
def test_a_contract_is_exactly_what_its_numbers_give(
    key: str, value: Any, says: str, with_contract: Files, tmp_path: Path
) -> None:
    assert findings(with_contract, tmp_path) == []

    def change(document: dict[str, Any]) -> None:
        document[key] = value

    (tmp_path / "other").mkdir()
    found = findings(edited(with_contract, "preprocess.json", change), tmp_path / "other")
    assert says in found[0], found
