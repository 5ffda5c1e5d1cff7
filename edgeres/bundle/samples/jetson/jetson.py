"""Build this board's TensorRT engine, run the golden test on it, print its latency.

    python3 sample/jetson.py

Needs Python 3.8 and NVIDIA's trtexec (JetPack: apt install tensorrt), which is looked for in
$TRTEXEC, on the PATH and in /usr/src/tensorrt/bin. The engine is left beside the bundle's folder,
as FOLDER.engine; it is of this GPU and this TensorRT only. Exit status:

    0   the engine gives the golden outputs' classes, each output within the allowed difference
    1   a file was changed, or the outputs differ
    2   it can't be said here: trtexec is missing, or builds or runs no engine
"""

import array
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # no cache is left in the bundle
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
ENGINE = ROOT + ".engine"
PLACE = "/usr/src/tensorrt/bin/trtexec"  # where JetPack puts it
HEADER = re.compile(r"^&&&& (?:RUNNING|PASSED|FAILED|WAIVED) \S+ \[TensorRT v(\d{4,6})\]", re.M)
LATENCY = re.compile(r"\[I\] Latency: (.*)$", re.M)
FIGURE = re.compile(r"(median|percentile\(9[09]%\)) = ([\d.e+-]+) ms")
QUERIES = re.compile(r"\[I\] Timing trace has (\d+) queries over")
# TensorRT's kernels fuse and round otherwise than those that made the golden outputs.
SHARE = 0.1  # of the largest golden output


class CannotTest(Exception):
    """Why it can't be said here, in a sentence."""


def bundled_test():
    """The bundle's golden_test.py, which knows whether its files are whole."""
    path = os.path.join(ROOT, "golden_test.py")
    try:
        spec = importlib.util.spec_from_file_location("golden_test", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except OSError as error:
        raise CannotTest(f"{error}; unpack the bundle anew") from None
    return module


def trtexec():
    """The program's path."""
    given = os.environ.get("TRTEXEC")
    found = given or shutil.which("trtexec") or PLACE
    if not os.access(found, os.X_OK):
        raise CannotTest(
            f"{found} is no program; install TensorRT's trtexec (JetPack: "
            "`sudo apt install tensorrt`) or say where it is: TRTEXEC=PATH python3 sample/jetson.py"
        )
    return found


def run(*command):
    """A command's output; both streams."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=3600
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotTest(f"{command[0]} can't be run ({error})") from None
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0 or ("--help" not in command and "&&&& PASSED" not in text):
        errors = [line for line in text.splitlines() if "[E]" in line] or text.splitlines()[-1:]
        said = "".join(c if c.isprintable() else " " for c in " ".join(errors[-2:]))[-500:]
        raise CannotTest("trtexec failed; it last said: {}".format(said or "nothing"))
    return text


def version(tool):
    """TensorRT's number, e.g. 8 or 10."""
    found = HEADER.search(run(tool, "--help"))
    if not found:
        raise CannotTest(f"{tool} is no trtexec of NVIDIA's")
    return int(found[1]) // (10000 if int(found[1]) >= 100000 else 1000)


def floats(name):
    """A file of float32 numbers, as this machine reads them."""
    values = array.array("f")
    with open(os.path.join(ROOT, "golden", name), "rb") as file:
        values.frombytes(file.read())
    return values


def outputs(path):
    """What trtexec's --exportOutput wrote: one output's values."""
    with open(path, encoding="utf-8", errors="replace") as file:
        text = re.sub(r"(?<![\w\"])(-?)(nan|inf)(?![\w\"])", "NaN", file.read())
    try:
        return [float(value) for value in json.loads(text)[0]["values"]]
    except (ValueError, KeyError, IndexError, TypeError):
        raise CannotTest("trtexec's outputs can't be read") from None


def highest(values):
    return max(range(len(values)), key=lambda i: values[i])


def main():
    """Print what was found, one line each; the exit status."""
    test = bundled_test()
    try:
        wrong = test.changed_files()
        manifest, golden, certificate = (
            test.document(*names)
            for names in (("manifest.json",), ("golden", "golden.json"), ("certificate.json",))
        )
    except test.CannotTest as reason:
        raise CannotTest(str(reason)) from None
    for line in wrong:
        print(line)
    if wrong:
        return 1
    tool = trtexec()
    major = version(tool)
    target = manifest["target"]
    row = next(row for row in certificate["files"] if row["target"] == target)
    source = row["file"]["input"]["name"]
    if "'" in source or "," in source:
        raise CannotTest(f"trtexec can't be told an input named {source!r}")
    # TensorRT 10 and 11 take the types that the file has; 8 is only allowed them.
    precision = ["--stronglyTyped"]
    if major < 10:
        precision = ["--fp16"] if target.endswith("fp16") else ["--int8"]
    shape = "x".join(str(n) for n in [1] + golden["input"]["shape"])
    shapes = f"--shapes='{source}':{shape}"
    model = os.path.join(ROOT, *golden["model"].split("/"))
    print(f"building the engine with {tool} (TensorRT {major}): some minutes")
    sys.stdout.flush()
    run(tool, "--onnx=" + model, "--saveEngine=" + ENGINE, "--skipInference", shapes, *precision)
    load = [tool, "--loadEngine=" + ENGINE, shapes]
    # Copies to and from the GPU, CUDA graph, no sleep: a flag of one is the other's default.
    pinned = ["--includeDataTransfers"] if major >= 11 else ["--useCudaGraph", "--useSpinWait"]
    inputs, expected = floats("inputs.bin"), floats("outputs.bin")
    samples = golden["samples"]
    size, classes = len(inputs) // samples, len(expected) // samples
    worst, agree = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        one, answer = os.path.join(folder, "in.bin"), os.path.join(folder, "out.json")
        for i in range(samples):
            with open(one, "wb") as file:
                file.write(inputs[i * size : (i + 1) * size].tobytes())
            run(
                *load,
                f"--loadInputs='{source}':{one}",
                "--exportOutput=" + answer,
                "--warmUp=0",
                "--duration=0",
                "--iterations=1",
                *pinned,
            )
            mine, theirs = outputs(answer), expected[i * classes : (i + 1) * classes]
            if len(mine) != classes or any(value != value for value in mine):
                print(f"FAILED: sample {i}: the engine gives no {classes} numbers")
                return 1
            worst = max([worst] + [abs(a - b) for a, b in zip(mine, theirs)])
            agree += highest(mine) == highest(theirs)
    allowed = max(golden["tolerance"], SHARE * max(abs(value) for value in expected))
    passed = agree == samples and worst <= allowed
    verdict = "passed" if passed else "FAILED"
    print(
        f"golden test: {agree} of {samples} classes the same, "
        f"worst difference {worst:.4g}, allowed {allowed:.4g}: {verdict}"
    )
    log = run(*load, "--warmUp=500", "--duration=5", "--percentile=90,99", *pinned)
    latency, count = LATENCY.search(log), QUERIES.search(log)
    figures = dict(FIGURE.findall(latency[1])) if latency else {}
    if "median" in figures:
        p90, p99 = (figures.get(f"percentile({n}%)", "-") for n in (90, 99))
        print(
            f"latency, batch 1, copies included: median {figures['median']} ms, p90 {p90} ms, "
            f"p99 {p99} ms (n = {count[1] if count else 'not told'})"
        )
    else:
        print("latency: trtexec told none")
    print("engine: " + ENGINE)
    return 0 if passed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CannotTest as reason:
        print(f"CAN'T TEST: {reason}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # whoever made the bundle may have written anything into it
        print(f"CAN'T TEST: {str(error)!r:.500} ({type(error).__name__})")
        sys.exit(2)
