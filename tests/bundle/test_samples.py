"""The samples prepare a picture as the contract's own lines do, byte for byte, and name it."""

from __future__ import annotations

import base64
import functools
import http.server
import importlib.util
import json
import os
import py_compile
import queue
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from beds.bundles import make
from beds.pictures import INPUTS, MEANS, cases, picture
from PIL import Image

from edgeres import bundle, contract
from edgeres.artifact import Artifact
from edgeres.types import Preprocess, Resize, tensor_spec

Run = dict[str, Artifact]
SAMPLES = Path(bundle.__file__).parent / "samples"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RUNTIME = os.environ.get("EDGERES_ORT_WEB")  # onnxruntime-web's `dist` folder or its .tgz
browser = pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on this system's PATH")


def sample(kind: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"sample_{name}", SAMPLES / kind / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(site: Path, script: str, profile: Path, *files: str) -> Any:
    """What a page with these scripts, served with the files of a folder, gives to `done`."""
    answers: queue.Queue[Any] = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

    tags = "".join(f'<script src="{name}"></script>' for name in files)
    send = "const done = found => fetch('/', {method: 'POST', body: JSON.stringify(found)});"
    whole = f"{send} (async () => {{ {script} }})().catch(error => done(`${{error}}`));"
    page = f"<!DOCTYPE html><p id=state>{tags}<script>{whole}</script>"
    (site / "test.html").write_text(page, "utf-8")
    handler = functools.partial(Handler, directory=str(site))
    assert CHROMIUM is not None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with subprocess.Popen(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", f"--user-data-dir={profile}",
             f"http://127.0.0.1:{server.server_port}/test.html"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as browser:  # fmt: skip
            try:
                found = answers.get(timeout=120)
            finally:
                browser.terminate()
                server.shutdown()
    assert not isinstance(found, str), found
    return found


def test_the_python_sample_does_what_the_contract_says() -> None:
    prepared = sample("linux", "classify").prepared
    count = 0
    for image, said, expected in cases():
        found = prepared(image, said)
        assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes(), said
        count += 1
    assert count > 90
    with pytest.raises(ValueError, match="second scaling"):
        prepared(picture(16, 16), {"then": "scaled"})


@browser
@pytest.mark.browser
def test_the_web_page_does_what_the_contract_says(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "web", tmp_path / "site")
    asked, expected = [], []
    for image, said, x in cases():
        pixels = base64.b64encode(np.asarray(image).tobytes()).decode()
        asked.append([pixels, *image.size, said])
        expected.append(base64.b64encode(x.tobytes()).decode())
    (tmp_path / "site" / "cases.js").write_text(f"const cases = {json.dumps(asked)};", "utf-8")
    script = """
    done(cases.map(([pixels, width, height, said]) => {
      const x = prepared(Uint8Array.from(atob(pixels), c => c.charCodeAt(0)), width, height, said);
      return btoa(String.fromCharCode(...new Uint8Array(x.buffer)));
    }));"""
    found = answer(tmp_path / "site", script, tmp_path / "profile", "cases.js", "preprocess.js")
    wrong = [
        said["resize"] for (*_, said), a, b in zip(asked, found, expected, strict=True) if a != b
    ]
    assert len(found) > 90 and not wrong, (len(wrong), wrong[0])


@browser
@pytest.mark.browser
def test_the_web_page_sees_the_picture_that_pillow_sees(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(SAMPLES / "web", site)
    upright = sample("linux", "classify").upright
    picture(37, 23).save(site / "plain.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(37, 23).save(site / "turned.png", exif=turned)
    clear = picture(20, 30).convert("RGBA")
    clear.putalpha(
        Image.fromarray(np.repeat([[0], [255], [255]], 10, 0).repeat(20, 1).astype("uint8"))
    )
    clear.save(site / "clear.png")
    picture(24, 16).quantize(16).save(site / "palette.gif")
    names = ["plain.png", "turned.png", "clear.png", "palette.gif"]
    script = f"""
    const found = [];
    for (const name of {names}) {{
      const [three, width, height] = await pixelsOf(await (await fetch(name)).blob());
      found.push([width, height, btoa(String.fromCharCode(...three))]);
    }}
    done(found);"""
    found = answer(site, script, tmp_path / "profile", "preprocess.js", "page.js")
    for name, (width, height, pixels) in zip(names, found, strict=True):
        seen = upright(site / name)
        assert (width, height) == seen.size, name
        assert base64.b64decode(pixels) == seen.tobytes(), name


@browser
@pytest.mark.browser
@pytest.mark.skipif(
    RUNTIME is None or not Path(RUNTIME).exists(), reason="EDGERES_ORT_WEB names no onnxruntime-web"
)
@pytest.mark.parametrize("kind", ["onnx-int8", "onnx-fp32"])
def test_the_web_page_answers_as_onnxruntime_does(
    kind: str, exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    import onnxruntime

    run = {k: v for k, v in exported_run.items() if kind in k or not k.startswith("export:onnx")}
    spec = tensor_spec(run[f"export:{kind}"].facts["exported"]["input"])
    said = contract.whole(Preprocess(16, *MEANS["int8"]), Resize(16, 20, "center", "bilinear"),
                          spec, [f"class {n}" for n in range(10)])  # fmt: skip
    shutil.unpack_archive(make(run, "web", golden_pictures, tmp_path / "b.zip"), tmp_path / "b")
    (tmp_path / "b" / "preprocess.json").write_text(json.dumps(said))
    site = tmp_path / "site"
    assert RUNTIME is not None
    subprocess.run([sys.executable, "sample/site.py", site, "--runtime", RUNTIME], check=True,
                   cwd=tmp_path / "b")  # fmt: skip
    image = picture(60, 40)
    image.save(site / "p.png")
    names = {"picture": image, "np": np, "Image": Image}
    exec("\n".join(said["code"]), names)
    session = onnxruntime.InferenceSession(site / "model.onnx")
    (y,) = session.run(None, {session.get_inputs()[0].name: names["x"]})
    codes = json.loads((site / "output.json").read_text())
    y = (y[0].astype(np.float64) - codes["zero_point"]) * codes["scale"]
    expected = np.exp(y - y.max()) / np.exp(y - y.max()).sum()
    script = """
    const frame = document.createElement("iframe");
    frame.src = "index.html";
    document.body.append(frame);
    while (!frame.contentWindow.classify) await new Promise(next => setTimeout(next, 50));
    done(await frame.contentWindow.classify(await (await fetch("p.png")).blob()));"""
    found = answer(site, script, tmp_path / "profile")
    assert np.abs(np.array(found) - expected).max() < 0.02
    assert int(np.argmax(found)) == int(expected.argmax())


def test_no_page_is_made_of_another_runtime(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    shutil.unpack_archive(
        make(exported_run, "web", golden_pictures, tmp_path / "b.zip"), tmp_path / "b"
    )

    def said(*argv: str | Path, path: str = "/nowhere") -> str:
        done = subprocess.run(
            [sys.executable, "sample/site.py", *argv], cwd=tmp_path / "b", check=False,
            capture_output=True, text=True, env={"PATH": path},
        )  # fmt: skip
        assert done.returncode == 2 and not done.stderr, done.stderr
        assert not (tmp_path / "site").exists()
        return done.stdout

    site, other = tmp_path / "site", tmp_path / "other"
    assert "npm isn't installed" in said(site)
    other.mkdir()
    assert "has no ort.wasm.min.js (No such file" in said(site, "--runtime", other)
    for name in sample("web", "site").RUNTIME:
        (other / name).write_text("alert(1)")
    assert "ort.wasm.min.js isn't that of onnxruntime-web@" in said(site, "--runtime", other)
    assert "is no package of" in said(site, "--runtime", other / "ort.wasm.min.js")
    assert "is there already" in said(other)


def test_the_python_sample_names_a_picture(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "b"
    shutil.unpack_archive(make(exported_run, "linux", golden_pictures, tmp_path / "b.zip"), folder)
    said = contract.whole(Preprocess(16, *MEANS["int8"]), Resize(16, 20, "center", "bilinear"),
                          INPUTS["int8"], [f"class {n}" for n in range(10)])  # fmt: skip
    (folder / "preprocess.json").write_text(json.dumps(said))
    (folder / "labels.txt").write_text("".join(f"class {n}\x1b[2J\n" for n in range(10)))
    picture(60, 40).save(tmp_path / "p.png")

    def run(*argv: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, *argv], cwd=folder, check=False,
                              capture_output=True, text=True)  # fmt: skip
        assert not done.stderr.startswith("Traceback"), done.stderr
        return done.returncode, done.stdout

    status, text = run("sample/classify.py", str(tmp_path / "p.png"))
    lines = text.splitlines()
    assert status == 0 and len(lines) == 6 and "\x1b" not in text
    shares = [float(line.split("%")[0]) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0
    assert run("sample/classify.py", "nowhere.png")[0] == 2
    status, text = run("-I", "-S", "sample/classify.py", str(tmp_path / "p.png"))
    assert status == 2 and "pip install numpy pillow ai-edge-litert" in text
    assert run("sample/classify.py")[0] == 2


@pytest.mark.skipif(shutil.which("javac") is None, reason="no `javac` on this system's PATH")
def test_the_android_sample_does_what_the_contract_says(tmp_path: Path) -> None:
    asked, expected = [], []
    for image, said, x in cases():
        rule = said.get("resize")
        numbers = (said["mean"], said["std"])
        low, high = {"int8": (-128, 127), "uint8": (0, 255)}.get(said["dtype"], (0, 0))
        asked.append(" ".join(map(str, (
            np.asarray(image).tobytes().hex(), *image.size, said["size_px"],
            *((rule["short_side_px"], rule["crop"], rule["interpolation"]) if rule
              else (16, "none", "bilinear")),
            *(",".join(map(str, n)) for n in numbers), said.get("scale", 0),
            said.get("zero_point", 0), low, high, said["layout"] == "NCHW",
        ))))  # fmt: skip
        expected.append(x.astype(np.float32))
    (tmp_path / "cases.txt").write_text("\n".join(asked))
    (tmp_path / "Main.java").write_text("""
        import edgeres.sample.Preprocess;
        import java.nio.file.*;
        class Main {
          static float[] numbers(String text) {
            String[] parts = text.split(",");
            float[] found = new float[parts.length];
            for (int i = 0; i < found.length; i++) found[i] = Float.parseFloat(parts[i]);
            return found;
          }
          public static void main(String[] args) throws Exception {
            StringBuilder out = new StringBuilder();
            for (String line : Files.readAllLines(Paths.get("cases.txt"))) {
              String[] p = line.split(" ");
              byte[] rgb = new byte[p[0].length() / 2];
              for (int i = 0; i < rgb.length; i++)
                rgb[i] = (byte) Integer.parseInt(p[0].substring(2 * i, 2 * i + 2), 16);
              byte[] small = Preprocess.framed(rgb, Integer.parseInt(p[1]), Integer.parseInt(p[2]),
                  Integer.parseInt(p[3]), Integer.parseInt(p[4]), p[5], p[6]);
              float[] x = Preprocess.values(small, numbers(p[7]), numbers(p[8]),
                  Float.parseFloat(p[9]), Integer.parseInt(p[10]), Integer.parseInt(p[11]),
                  Integer.parseInt(p[12]), p[13].equals("True"));
              for (float v : x) out.append(Float.floatToRawIntBits(v)).append(' ');
              out.append("\\n");
            }
            for (int i : Preprocess.likeliest(new float[] {1, 3, 2}, 2)) out.append(i);
            Files.writeString(Paths.get("out.txt"), out);
          }
        }""")
    source = SAMPLES / "android/src/main/java/edgeres/sample/Preprocess.java"
    subprocess.run(["javac", "-Xlint:all", "-Werror", "--release", "11", "-d", ".", source,
                    "Main.java"], cwd=tmp_path, check=True)  # fmt: skip
    subprocess.run(["java", "-cp", ".", "Main"], cwd=tmp_path, check=True)
    *lines, best = (tmp_path / "out.txt").read_text().splitlines()
    assert len(lines) == len(expected) > 90 and best == "12"
    for line, x, what in zip(lines, expected, asked, strict=True):
        found = np.array(line.split(), np.int32).view(np.float32)
        # Of an input of codes, -0.0 is the code 0.
        assert np.array_equal(found, x.ravel()), what[-200:]


def test_what_python_compiled_beside_a_sample_stays_there(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    """It holds this machine's paths, and the same run would give other bytes elsewhere."""
    py_compile.compile(str(SAMPLES / "linux" / "classify.py"))
    with zipfile.ZipFile(make(exported_run, "linux", golden_pictures, tmp_path / "b.zip")) as made:
        assert [n for n in made.namelist() if n.endswith(".pyc") or "__pycache__" in n] == []


def test_a_picture_that_cannot_be_read_leaves_the_others_their_answers(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    shutil.unpack_archive(
        make(exported_run, "linux", golden_pictures, tmp_path / "b.zip"), tmp_path
    )
    spec = tensor_spec(exported_run["export:tflite-int8"].facts["exported"]["input"])
    rule = Resize(16, 20, "center", "bilinear")
    said = contract.whole(Preprocess(16, *MEANS["int8"]), rule, spec, [f"c{n}" for n in range(10)])
    (tmp_path / "preprocess.json").write_text(json.dumps(said))
    picture(60, 40).save(tmp_path / "a b.png")
    whole = (tmp_path / "a b.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    done = subprocess.run(
        [sys.executable, "sample/classify.py", "cut.png", "text.jpg", "a b.png"], cwd=tmp_path,
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "cut.png: " in done.stdout and "text.jpg: " in done.stdout
    assert done.stdout.count("%") == 5


def test_a_service_on_a_port_that_is_taken_or_none_is_a_sentence(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    path = make(exported_run, "web-service", golden_pictures, tmp_path / "b.zip")
    shutil.unpack_archive(path, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in (str(taken.getsockname()[1]), "http", "99999"):
            done = subprocess.run(
                [sys.executable, "sample/service.py", port], cwd=tmp_path, check=False,
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 2 and not done.stderr, done.stderr
            assert done.stdout.startswith(f"no service on port {port}: ")
