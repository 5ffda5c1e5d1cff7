// Shows the likeliest classes of a picture that the user picks. Labels are text, never HTML.
"use strict";

const SHOWN = 5;
const byId = (id) => document.getElementById(id);
const tell = (text) => { byId("state").textContent = text; };

// A file's upright picture over white, as RGB bytes and its size.
async function pixelsOf(file) {
  const picture = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const canvas = document.createElement("canvas");
  const { width, height } = Object.assign(canvas, { width: picture.width, height: picture.height });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, 0, 0);
  const four = context.getImageData(0, 0, width, height).data, three = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < four.length; i += 4) {
    three[j++] = four[i];
    three[j++] = four[i + 1];
    three[j++] = four[i + 2];
  }
  return [three, width, height];
}

// What the model says: a softmax over the classes.
function probabilities(values) {
  const top = Math.max(...values), each = Array.from(values, (v) => Math.exp(v - top));
  const sum = each.reduce((a, b) => a + b);
  return each.map((v) => v / sum);
}

async function main() {
  const read = async (name) => {
    const answer = await fetch(name);
    if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
    return answer;
  };
  const said = await (await read("preprocess.json")).json();
  const labels = (await (await read("labels.txt")).text()).trimEnd().split("\n");
  const output = (await (await read("output.json")).json());
  ort.env.wasm.numThreads = 1;
  const model = await (await read("model.onnx")).arrayBuffer();
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  async function classify(file) {
    const x = prepared(...(await pixelsOf(file)), said);
    const tensor = new ort.Tensor(said.dtype, x, [1, ...said.shape.slice(1)]);
    const found = await session.run({ [session.inputNames[0]]: tensor });
    const values = Array.from(found[session.outputNames[0]].data, Number);
    return probabilities(values.map((v) => (v - output.zero_point) * output.scale));
  }
  byId("file").addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    if (!file) return;
    byId("answers").replaceChildren();
    try {
      tell("Looking.");
      URL.revokeObjectURL(byId("picture").src);
      byId("picture").src = URL.createObjectURL(file);
      byId("picture").hidden = false;
      const found = await classify(file);
      const order = found.map((p, i) => [p, labels[i]]).sort((a, b) => b[0] - a[0]).slice(0, SHOWN);
      byId("answers").replaceChildren(...order.map(([p, name]) => {
        const line = document.createElement("li");
        line.textContent = `${name}: ${(100 * p).toFixed(1)} %`;
        return line;
      }));
      tell("");
    } catch (error) {
      byId("picture").hidden = true;
      tell(`This picture can't be classified: ${error.message}`);
    }
  });
  globalThis.classify = classify;
  tell("Choose a picture.");
}

main().catch((error) => tell(`The model can't be loaded: ${error.message}`));
