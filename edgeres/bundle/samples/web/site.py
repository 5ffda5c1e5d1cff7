"""Put a page together that classifies pictures in the browser: static files for any server.

    python3 sample/site.py FOLDER [--runtime FOLDER_OR_TGZ]

Needs Python 3.8. The runtime is onnxruntime-web 1.30.0: fetched by npm, or taken from a folder with
its three files (its `dist`) or the package's .tgz. Each of the three must have the sha256 below.
Exit status: 0, or 2 with a sentence.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PACKAGE = "onnxruntime-web@1.30.0"
RUNTIME = {  # from the package's dist
    "ort.wasm.min.js": "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",  # noqa: E501
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",  # noqa: E501
}
PAGE = ("index.html", "page.js", "preprocess.js")
LARGEST = 64 << 20


class Refused(Exception):
    """Why no page was made, in a sentence."""


def runtime(place):
    """The runtime's files: name -> contents, each as it was pinned."""
    found = {}
    if os.path.isdir(place):
        for name in RUNTIME:
            try:
                with open(os.path.join(place, name), "rb") as file:
                    found[name] = file.read(LARGEST)
            except OSError as error:
                raise Refused(f"{place}: has no {name} ({error.strerror})") from None
    else:
        try:
            with tarfile.open(place) as archive:
                for name in RUNTIME:  # read, never unpacked: no path in it is followed
                    member = archive.extractfile("package/dist/" + name)
                    found[name] = member.read(LARGEST) if member else b""
        except (OSError, tarfile.TarError, KeyError) as error:
            raise Refused(f"{place}: is no package of {PACKAGE} ({error})") from None
    for name, content in found.items():
        if hashlib.sha256(content).hexdigest() != RUNTIME[name]:
            raise Refused(f"{place}: {name} isn't that of {PACKAGE}")
    return found


def fetched(folder):
    """The package, by npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise Refused(f"npm isn't installed; install it, or give --runtime a folder of {PACKAGE}")
    done = subprocess.run(
        [npm, "pack", PACKAGE, "--silent", "--ignore-scripts"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    packages = [name for name in os.listdir(folder) if name.endswith(".tgz")]
    if done.returncode != 0 or len(packages) != 1:
        said = done.stdout.decode("utf-8", "replace").split("\n")[0][:200]
        raise Refused(f"npm can't fetch {PACKAGE}: {said or 'it says nothing'}")
    return os.path.join(folder, packages[0])


def output(certificate, target):
    """How the model's outputs become numbers: scale and zero point (1 and 0 for float ones)."""
    row = next(row for row in certificate["files"] if row["target"] == target)
    codes = row["file"]["output"].get("quantization")
    return {
        "scale": codes["scale"][0] if codes else 1,
        "zero_point": codes["zero_point"][0] if codes else 0,
    }


def document(*names):
    with open(os.path.join(ROOT, *names), encoding="utf-8") as file:
        return json.load(file)


def main():
    """Write the folder."""
    parser = argparse.ArgumentParser(description="a page that classifies pictures")
    parser.add_argument("folder")
    parser.add_argument("--runtime")
    args = parser.parse_args()
    if os.path.exists(args.folder):
        raise Refused(f"{args.folder}: is there already; name a new folder")
    with tempfile.TemporaryDirectory() as place:
        files = runtime(args.runtime or fetched(place))
    model = os.path.join(ROOT, *document("golden", "golden.json")["model"].split("/"))
    codes = output(document("certificate.json"), document("manifest.json")["target"])
    os.makedirs(args.folder)
    for name, content in {**files, "output.json": json.dumps(codes).encode()}.items():
        with open(os.path.join(args.folder, name), "wb") as file:
            file.write(content)
    for name in PAGE:
        shutil.copyfile(os.path.join(HERE, name), os.path.join(args.folder, name))
    for name in ("labels.txt", "preprocess.json"):
        shutil.copyfile(os.path.join(ROOT, name), os.path.join(args.folder, name))
    shutil.copyfile(model, os.path.join(args.folder, "model.onnx"))
    print(f"serve it, e.g.: python3 -m http.server 8080 --bind 127.0.0.1 -d {args.folder}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refused as reason:
        print(reason)
    except (OSError, ValueError, LookupError) as error:
        print(f"{type(error).__name__}: {error}")
    sys.exit(2)
