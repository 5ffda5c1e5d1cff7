"""Does this device give the answers that the bundle was made with?

    python3 golden_test.py

Needs Python 3.8, numpy and a runtime of the model file (ai-edge-litert, tflite-runtime or
onnxruntime). Core ML packages are tested by the package in sample/. Whose bundle it is, only
`edgeres verify` says. It prints sentences, never a traceback. Exit status:

    0   every file is what the manifest says, and every output is within the tolerance
    1   a file is missing or was changed, or the outputs differ
    2   it can't be said here: Python is too old, numpy or a runtime is missing, the model's
        runtime doesn't exist for this system, or this is no bundle
    130 it was interrupted
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

PASSED, FAILED, UNKNOWN, INTERRUPTED = 0, 1, 2, 130


class CannotTest(Exception):
    """Why it can't be said here, in a sentence."""


def printable(text):
    """Somebody's text on one line."""
    return "".join(c if c.isprintable() else "?" for c in str(text))[:500]


def document(*names):
    """A JSON object of the bundle."""
    name = "/".join(names)
    try:
        with open(os.path.join(HERE, *names), encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise CannotTest(
            "{} can't be read ({}); unpack the bundle anew".format(name, error.strerror)
        ) from None
    except (ValueError, RecursionError):
        raise CannotTest("{} is no JSON; unpack the bundle anew".format(name)) from None
    if not isinstance(found, dict):
        raise CannotTest("{} is no JSON object; unpack the bundle anew".format(name))
    return found


def changed_files():
    """A line for each file that is missing, or not what the manifest says."""
    sums = document("manifest.json").get("sha256")
    if not isinstance(sums, dict) or not sums:
        raise CannotTest("manifest.json names no files; unpack the bundle anew")
    wrong = []
    for name, expected in sums.items():
        parts, found = name.split("/"), None
        outside = ".." in parts or "" in parts or "\\" in name or ":" in name
        if not outside:
            try:
                with open(os.path.join(HERE, *parts), "rb") as file:
                    found = hashlib.sha256(file.read()).hexdigest()
            except (OSError, ValueError):
                wrong.append("MISSING: {}; unpack the bundle anew".format(printable(name)))
                continue
        if found != expected:
            wrong.append("CHANGED: {}; unpack the bundle anew".format(printable(name)))
    return wrong


def library_numpy():
    """numpy, if it is installed."""
    try:
        import numpy
    except Exception as error:  # a broken one raises what it likes
        raise CannotTest(
            "numpy is not installed here ({}); install it: `{} -m pip install numpy`".format(
                printable(error), sys.executable
            )
        ) from None
    return numpy


def run(np, model, inputs):
    """The model's outputs for each input, by the runtime that is installed here."""
    if os.path.isdir(model):
        raise CannotTest(
            "every file is whole, but a Core ML package runs on Apple's systems only: "
            "run the test of the Swift package in sample/ there (README.md says how)"
        )
    try:
        spec = importlib.util.spec_from_file_location("runner", os.path.join(HERE, "runner.py"))
        runner = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(runner)
        args = argparse.Namespace(model=model, threads=1, provider="CPUExecutionProvider")
        query = runner.runtime(args).load(model)
    except Exception as error:  # each runtime has its own
        raise CannotTest("the model can't be loaded here: {}".format(printable(error))) from None
    try:
        return np.concatenate([query(sample[None]) for sample in inputs])
    except Exception as error:
        raise CannotTest("the model can't be run here: {}".format(printable(error))) from None


def main():
    """Print what was found, one line each; the exit status."""
    if sys.version_info < (3, 8):
        raise CannotTest("this is Python {}.{}; it needs 3.8".format(*sys.version_info[:2]))
    wrong = changed_files()
    for line in wrong:
        print(line)
    if wrong:
        return FAILED
    golden = document("golden", "golden.json")
    model = os.path.join(HERE, *golden["model"].split("/"))
    np = library_numpy()
    inputs, expected = (
        np.load(os.path.join(HERE, "golden", name), allow_pickle=False)
        for name in ("inputs.npy", "outputs.npy")
    )
    outputs = run(np, model, inputs)
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
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:  # whoever made the bundle may have written anything into it
        print("CAN'T TEST: {} ({})".format(printable(error), type(error).__name__))
        sys.exit(UNKNOWN)
