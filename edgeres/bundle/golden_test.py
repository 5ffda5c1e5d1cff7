"""Does this device give the answers that the bundle was made with?

    python3 golden_test.py

Needs numpy and a runtime of the model file (ai-edge-litert, tflite-runtime or onnxruntime). Exit
status 0: every file is what the manifest says, and every output is within the tolerance. It stands
alone on Python 3.8; Core ML packages are tested by the app in sample/.
"""

import argparse
import hashlib
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def changed_files():
    """Files that are missing, or not what the manifest says."""
    with open(os.path.join(HERE, "manifest.json"), encoding="utf-8") as file:
        sums = json.load(file)["sha256"]
    wrong = []
    for name, expected in sums.items():
        try:
            with open(os.path.join(HERE, *name.split("/")), "rb") as file:
                found = hashlib.sha256(file.read()).hexdigest()
        except OSError:
            found = None
        if found != expected:
            wrong.append(name)
    return wrong


def run(model, inputs):
    """The model's outputs for each input, by the runtime that is installed here."""
    import numpy as np

    sys.path.insert(0, HERE)
    import runner

    args = argparse.Namespace(model=model, threads=1, provider="CPUExecutionProvider")
    query = runner.runtime(args).load(model)
    return np.concatenate([query(sample[None]) for sample in inputs])


def main():
    """Print what was found, one line each; the exit status."""
    wrong = changed_files()
    for name in wrong:
        print("CHANGED: " + name)
    if wrong:
        return 1
    import numpy as np

    with open(os.path.join(HERE, "golden", "golden.json"), encoding="utf-8") as file:
        golden = json.load(file)
    inputs, expected = (
        np.load(os.path.join(HERE, "golden", name), allow_pickle=False)
        for name in ("inputs.npy", "outputs.npy")
    )
    outputs = run(os.path.join(HERE, *golden["model"].split("/")), inputs)
    worst = float(np.abs(outputs.astype(np.float64) - expected).max())
    same = bool((outputs.argmax(1) == expected.argmax(1)).all())
    unit = " codes" if expected.dtype.kind == "i" else ""
    print(
        "worst difference {:g}{}, allowed {:g}; same classes: {}".format(
            worst, unit, golden["tolerance"], "yes" if same else "NO"
        )
    )
    passed = same and worst <= golden["tolerance"]
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
