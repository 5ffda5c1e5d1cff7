"""What is in a picture, by the bundle's model.

    python3 sample/classify.py PICTURE [PICTURE ...]

Needs Python 3.8, numpy, Pillow and ai-edge-litert (or tflite-runtime). A picture is prepared by the
numbers of preprocess.json; nothing of that file is run. Exit status: 0; 2 where a picture or
something that it needs can't be read.
"""

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
SHOWN = 5


def contract():
    """The numbers that a picture is prepared by."""
    with open(os.path.join(ROOT, "preprocess.json"), encoding="utf-8") as file:
        return json.load(file)


def upright(path):
    """The first frame of a picture as 8-bit RGB, turned as its EXIF says, over white."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
        if picture.mode in ("P", "LA", "PA", "RGBA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        return picture.convert("RGB")


def prepared(picture, said):
    """A picture as the file's input, e.g. (1, H, W, 3) int8."""
    import numpy as np
    from PIL import Image

    if "then" in said:
        raise ValueError("this sample doesn't do the second scaling of preprocess.json")
    rule = said.get("resize")
    if rule:
        w, h = picture.size
        px, box = rule["size_px"], (0, 0, w, h)
        if rule["crop"] != "none":
            s = min(w, h) * px / min(rule["short_side_px"], max(px, min(w, h)))
            left, top = (w - s) // 2, (h - s) // 2
            box = (left, top, left + s, top + s)
        method = getattr(Image, "Resampling", Image)
        method = getattr(method, rule["interpolation"].upper())
        picture = picture.resize((px, px), method, box=box)
    elif picture.size != (said["size_px"], said["size_px"]):
        raise ValueError("no rule says how a picture comes to {0} x {0} px".format(said["size_px"]))
    x = np.asarray(picture, np.float32) / 255
    x = (x - np.float32(said["mean"])) / np.float32(said["std"])
    if "scale" in said:
        x = np.rint(x / np.float32(said["scale"])) + said["zero_point"]
        x = x.clip(*LIMITS[said["dtype"]])
    x = x.astype(said["dtype"])
    return np.ascontiguousarray((x.transpose(2, 0, 1) if said["layout"] == "NCHW" else x)[None])


def interpreter(path):
    """A LiteRT interpreter of the model."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    found = Interpreter(model_path=path, num_threads=os.cpu_count() or 1)
    found.allocate_tensors()
    return found


def probabilities(model, x):
    """What the model says of an input: a softmax, one number per class."""
    import numpy as np

    source, sink = model.get_input_details()[0], model.get_output_details()[0]
    model.set_tensor(source["index"], x)
    model.invoke()
    y = model.get_tensor(sink["index"])[0].astype(np.float64)
    scale, zero_point = sink["quantization"]
    y = (y - zero_point) * scale if scale else y
    y = np.exp(y - y.max())
    return y / y.sum()


def main(paths):
    """Print the likeliest classes of each picture."""
    if not paths:
        print(__doc__)
        return 2
    said = contract()
    with open(os.path.join(ROOT, "golden", "golden.json"), encoding="utf-8") as file:
        model = interpreter(os.path.join(ROOT, *json.load(file)["model"].split("/")))
    with open(os.path.join(ROOT, "labels.txt"), encoding="utf-8") as file:
        labels = file.read().splitlines()
    wrong = 0
    for path in paths:
        try:
            found = probabilities(model, prepared(upright(path), said))
        except ImportError:
            raise
        except Exception as error:  # Pillow has no common base for what is no picture
            print(f"{path}: {type(error).__name__}: {error}")
            wrong = 2
            continue
        print(path)
        for i in found.argsort()[::-1][:SHOWN]:
            name = "".join(c if c.isprintable() else "?" for c in labels[i])
            print(f"  {found[i]:6.1%}  {name}")
    return wrong


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ImportError as error:
        print(
            f"{error}; install what it needs: "
            f"{sys.executable} -m pip install numpy pillow ai-edge-litert"
        )
        sys.exit(2)
    except (OSError, ValueError, LookupError) as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(2)
