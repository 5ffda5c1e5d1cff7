"""A classifier behind HTTP, with the standard library and onnxruntime only.

    python3 sample/service.py 8080 &
    curl --data-binary @golden/inputs.bin http://127.0.0.1:8080/

The body is one or several inputs as raw bytes, in the file's own type and layout (golden.json); the
answer is a JSON list of labels. Loopback only: put a real server in front of it.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = json.loads((ROOT / "golden" / "golden.json").read_text())
LABELS = (ROOT / "labels.txt").read_text("utf-8").splitlines()
OPTIONS = onnxruntime.SessionOptions()
OPTIONS.add_session_config_entry("session.x64quantprecision", "1")  # exact on CPUs without VNNI
SESSION = onnxruntime.InferenceSession(str(ROOT / GOLDEN["model"]), OPTIONS)
SHAPE, DTYPE = GOLDEN["input"]["shape"], np.dtype(GOLDEN["input"]["dtype"])
LARGEST = 64 * int(np.prod(SHAPE)) * DTYPE.itemsize


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", 0))
            if not 0 < length <= LARGEST:
                raise ValueError("between 1 and 64 inputs, please")
            inputs = np.frombuffer(self.rfile.read(length), DTYPE).reshape(-1, *SHAPE)
        except ValueError as error:
            self.send_error(400, str(error))
            return
        name = SESSION.get_inputs()[0].name
        answers = [int(SESSION.run(None, {name: x[None]})[0].argmax()) for x in inputs]
        body = json.dumps([LABELS[i] for i in answers]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "8080"
    try:
        server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    except (OSError, OverflowError, ValueError) as error:
        print(f"no service on port {port}: {error}")
        sys.exit(2)
    server.serve_forever()
