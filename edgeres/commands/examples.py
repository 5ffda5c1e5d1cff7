"""What the end of each command's help shows: lines that can be typed as they are, or nearly."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "edgeres": (
        "edgeres run quickstart",
        "edgeres init",
        "edgeres doctor",
    ),
    "run": (
        "edgeres run quickstart",
        "edgeres run recipe.yaml --dry-run",
        "edgeres run recipe.yaml --until export --set seed=1",
    ),
    "step": (
        "edgeres step recipe.yaml quantize",
        "edgeres step recipe.yaml export:tflite-int8",
    ),
    "distill": (
        "edgeres distill --teacher resnet50 --student resnet18-w0.5",
        "edgeres distill --teacher resnet56-A --checkpoint resnet56.th \\\n"
        "    --preprocess imagenet --data cifar10:~/cifar10 --student resnet20",
        "edgeres distill --teacher torchvision:resnet50 --data imagefolder:photos \\\n"
        "    --imgsz 224",
    ),
    "prune": (
        "edgeres prune",
        "edgeres prune quickstart-7a886b04c19d --budget size=90KB",
        "edgeres prune --budget latency=0.5x --max-drop 1.0",
    ),
    "search": (
        "edgeres search --budget latency=0.5x --max-drop 1.0",
        "edgeres search --latency 2ms --device board@pi.local \\\n"
        "    --student resnet20-w0.5 --student resnet26-w0.75-se",
    ),
    "quantize": (
        "edgeres quantize quickstart-7a886b04c19d --method ptq --sensitivity",
        "edgeres quantize net.pth --preprocess imagenet --data imagefolder:photos",
        "edgeres quantize --auto --accuracy-drop 0.3",
    ),
    "export": (
        "edgeres export --target tflite-int8 --out models",
        "edgeres export quickstart-7a886b04c19d --target onnx-int8 \\\n    --target coreml-int8",
    ),
    "diagnose": (
        "edgeres diagnose",
        "edgeres diagnose net.pth --model resnet20-A --data cifar10:~/cifar10",
    ),
    "recalibrate": (
        "edgeres recalibrate net.pth --model resnet20-A \\\n"
        "    --data imagefolder:photos --out recalibrated",
    ),
    "inspect": (
        "edgeres inspect model.tflite",
        "edgeres inspect model.tflite --on ethos-u55-128",
    ),
    "verify": (
        "edgeres verify --on tflm,openvino,qnn-htp",
        "edgeres verify model.tflite --against quickstart-7a886b04c19d",
        "edgeres verify quickstart-android.zip --require-signature",
    ),
    "benchmark": (
        "edgeres benchmark",
        "edgeres benchmark model.tflite --accuracy --against quickstart-7a886b04c19d",
        "edgeres benchmark --device host --device board@pi.local --accuracy",
    ),
    "compare": (
        "edgeres compare quickstart-7a886b04c19d quickstart-0c91d25e3f80",
        "edgeres compare old.tflite new.tflite --device host --latency 0.1",
        "edgeres compare main.json branch.json --markdown --html compare.html",
    ),
    "check": (
        "edgeres check quickstart-7a886b04c19d",
        "edgeres check trtexec.log budgets.yaml --allow-invalid",
        "edgeres check quickstart-7a886b04c19d budgets.yaml --prometheus slo.prom \\\n"
        "    --grafana dashboard.json",
    ),
    "bundle": (
        "edgeres bundle @stable --for android",
        "edgeres bundle quickstart-7a886b04c19d --for web-service \\\n    --key release-key.pem",
        "edgeres bundle --check-aar litert.aar",
    ),
    "trust": (
        "edgeres trust release-key.pub --name acme",
        "edgeres trust quickstart-android.zip --name acme",
        "edgeres trust",
    ),
    "drift": ("edgeres drift quickstart-android.zip device.jsonl",),
    "promote": (
        "edgeres promote quickstart-7a886b04c19d --to stable",
        'edgeres promote --to canary --reason "latency is measured next week"',
    ),
    "rollback": ('edgeres rollback --channel stable --reason "wrong labels"',),
    "history": ("edgeres history", "edgeres history stable --json"),
    "report": ("edgeres report", "edgeres report quickstart-7a886b04c19d --figures figures"),
    "track": ("edgeres track", "edgeres track quickstart-7a886b04c19d --to tensorboard"),
    "list": ("edgeres list targets", "edgeres list runs", "edgeres list recipes --schema"),
    "init": (
        "edgeres init",
        "edgeres init mine.yaml --data imagefolder:photos --student resnet8 \\\n"
        "    --target tflite-int8",
    ),
    "doctor": ("edgeres doctor",),
    "show": ("edgeres runs show quickstart-7a886b04c19d",),
    "note": ('edgeres runs note quickstart-7a886b04c19d "new photos, old labels"',),
    "rename": ("edgeres runs rename quickstart-7a886b04c19d spring",),
    "delete": ("edgeres runs delete quickstart-7a886b04c19d --yes",),
    "clean": ("edgeres clean --dry-run",),
    "probe": ("edgeres devices probe host", "edgeres devices probe board@pi.local"),
    "discover": ("edgeres devices discover",),
    "install": (
        "edgeres runtimes install tflm ethos-u55-128",
        "edgeres runtimes install qnn-htp --accept-licence",
    ),
    "remove": ("edgeres runtimes remove qnn-htp",),
}


def epilog(name: str) -> str:
    """The examples of a command, in the form that click leaves as it is."""
    lines = "\n".join(f"  {line}" for e in EXAMPLES[name] for line in e.split("\n"))
    return f"\b\n{'Example' if len(EXAMPLES[name]) == 1 else 'Examples'}:\n{lines}"
