"""Does this device give the answers that the bundle was made with?

    python3 golden_test.py

Needs numpy and a runtime of the model file (ai-edge-litert, tflite-runtime or onnxruntime). It
stands alone on Python 3.8; Core ML packages are tested by the app in sample/. Whose bundle it is,
only `edgeres verify` says. Exit status:

    0   every file is what the manifest says, and every output is within the tolerance
    1   a file was changed, or the outputs differ
    2   it can't be said here: numpy or a runtime is missing, or this is no bundle
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
# What lies beside this file and isn't in the manifest must not stand in for a library.
sys.path[:] = [p for p in sys.path if os.path.realpath(p or ".") != os.path.realpath(HERE)]
sys.dont_write_bytecode = True  # nor may a cache be left in the bundle

import argparse  # noqa: E402
import hashlib  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402

PASSED, FAILED, UNKNOWN = 0, 1, 2


class CannotTest(Exception):
    """Why it can't be said here, in a sentence."""


def document(*names):
    """A JSON file of the bundle."""
    path = os.path.join(HERE, *names)
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise CannotTest(
            "{} can't be read ({}); unpack the bundle anew".format(path, error)
        ) from None


def changed_files():
    """Files that are missing, or not what the manifest says."""
    sums = document("manifest.json").get("sha256")
    if not sums:
        raise CannotTest("manifest.json names no files; unpack the bundle anew")
    wrong = []
    for name, expected in sums.items():
        parts = name.split("/")
        try:
            with open(os.path.join(HERE, *parts), "rb") as file:
                found = hashlib.sha256(file.read()).hexdigest()
        except OSError:
            found = None
        if found != expected or ".." in parts:
            wrong.append(name)
    return wrong


def library_numpy():
    """numpy, if it is installed."""
    try:
        import numpy
    except ImportError as error:
        raise CannotTest(
            "numpy is not installed here ({}); install it: `{} -m pip install numpy`".format(
                error, sys.executable
            )
        ) from None
    return numpy


def run(np, model, inputs):
    """The model's outputs for each input, by the runtime that is installed here."""
    spec = importlib.util.spec_from_file_location("runner", os.path.join(HERE, "runner.py"))
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    args = argparse.Namespace(model=model, threads=1, provider="CPUExecutionProvider")
    try:
        query = runner.runtime(args).load(model)
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        raise CannotTest("the model can't be loaded here: {}".format(error)) from None
    return np.concatenate([query(sample[None]) for sample in inputs])


def main():
    """Print what was found, one line each; the exit status."""
    wrong = changed_files()
    for name in wrong:
        print("CHANGED: " + name)
    if wrong:
        return FAILED
    np = library_numpy()
    golden = document("golden", "golden.json")
    inputs, expected = (
        np.load(os.path.join(HERE, "golden", name), allow_pickle=False)
        for name in ("inputs.npy", "outputs.npy")
    )
    outputs = run(np, os.path.join(HERE, *golden["model"].split("/")), inputs)
    if outputs.shape != expected.shape or outputs.dtype != expected.dtype:
        print("FAILED: the outputs are of another shape or type")
        return FAILED
    worst = float(np.abs(outputs.astype(np.float64) - expected.astype(np.float64)).max())
    same = bool((outputs.argmax(1) == expected.argmax(1)).all())
    unit = " codes" if expected.dtype.kind in "iu" else ""
    print(
        "worst difference {:g}{}, allowed {:g}; same classes: {}".format(
            worst, unit, golden["tolerance"], "yes" if same else "NO"
        )
    )
    passed = same and worst <= golden["tolerance"]
    print("passed" if passed else "FAILED")
    return PASSED if passed else FAILED


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CannotTest as reason:
        print("CAN'T TEST: {}".format(reason))
        sys.exit(UNKNOWN)
