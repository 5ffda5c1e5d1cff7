// A picture's pixels -> the model's input, by the numbers of preprocess.json. Pillow's arithmetic:
// its resize in fixed point (two passes, 22 bits; as Pillow 13 orders them), the rest in float32.
// No DOM, no library.
"use strict";

const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => {
    const a = -0.5;
    x = Math.abs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
  }],
  lanczos: [3, (x) => {
    const sinc = (v) => (v === 0 ? 1 : Math.sin(v * Math.PI) / (v * Math.PI));
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
  }],
};
const LIMITS = { int8: [-128, 127], uint8: [0, 255], int16: [-32768, 32767] };
const ARRAYS = { int8: Int8Array, uint8: Uint8Array, int16: Int16Array, float32: Float32Array };
const f = Math.fround;

// For each of `out` pixels: the first input pixel, and the whole-number weights from there on.
function weights(size, from, to, out, name) {
  const [reach, filter] = FILTERS[name];
  const scale = f(to - from) / out, stretch = Math.max(scale, 1), support = reach * stretch;
  return Array.from({ length: out }, (_, i) => {
    const center = from + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const last = Math.min(size, Math.trunc(center + support + 0.5));
    const w = [];
    let sum = 0;
    for (let x = first; x < last; x++) {
      w.push(filter((x - center + 0.5) * (1 / stretch)));
      sum += w[w.length - 1];
    }
    const whole = w.map((v) => (sum !== 0 ? v / sum : v) * 4194304);
    return [first, whole.map((v) => Math.trunc(v < 0 ? v - 0.5 : v + 0.5))];
  });
}

// One pass over lines of RGB pixels: along a line (step 3) or across lines (step 3 * width).
function pass(pixels, out, lines, lineStep, outLineStep, step, outStep, table) {
  for (let line = 0; line < lines; line++) {
    table.forEach(([first, w], i) => {
      for (let c = 0; c < 3; c++) {
        let sum = 2097152;
        for (let k = 0; k < w.length; k++) sum += pixels[line * lineStep + (first + k) * step + c] * w[k];
        out[line * outLineStep + i * outStep + c] = Math.min(255, Math.max(0, Math.floor(sum / 4194304)));
      }
    });
  }
  return out;
}

// RGB bytes (height, width, 3) -> (px, px, 3): the part in `box` ([left, top, right, bottom]).
function resized(pixels, width, height, px, name, box) {
  const [left, top, right, bottom] = box.map(f);
  const whole = [left, top].every(Number.isInteger);
  if (name === "nearest" || (whole && right - left === px && bottom - top === px)) {
    const out = new Uint8Array(px * px * 3), dx = f(right - left) / px, dy = f(bottom - top) / px;
    const at = (start, step, size) => {
      const found = [];
      for (let i = 0, v = start + step * 0.5; i < px; i++, v += step) {
        found.push(Math.min(size - 1, Math.max(0, Math.floor(v))));
      }
      return found;
    };
    const xs = at(left, dx, width), ys = at(top, dy, height);
    ys.forEach((y, j) => xs.forEach((x, i) => {
      for (let c = 0; c < 3; c++) out[(j * px + i) * 3 + c] = pixels[(y * width + x) * 3 + c];
    }));
    return out;
  }
  const passes = [];
  if (px !== width || left !== 0 || right !== width) {
    passes.push(([at, w, h]) => [pass(at, new Uint8Array(px * h * 3), h, w * 3, px * 3, 3, 3,
      weights(width, left, right, px, name)), px, h]);
  }
  if (px !== height || top !== 0 || bottom !== height) {
    passes.push(([at, w]) => [pass(at, new Uint8Array(px * w * 3), w, 3, 3, w * 3, w * 3,
      weights(height, top, bottom, px, name)), w, px]);
  }
  // Pillow 13 makes the lines fewer first, where that is less work; earlier ones never do.
  if (height > px && height - px > 2 * (width - px)) passes.reverse();
  return passes.reduce((picture, next) => next(picture), [pixels, width, height])[0];
}

// RGB bytes (height, width, 3) -> a typed array, the file's input without the batch.
function prepared(pixels, width, height, said) {
  if ("then" in said) throw new Error("this page doesn't do the second scaling of preprocess.json");
  const rule = said.resize, px = said.size_px;
  if (rule) {
    let box = [0, 0, width, height];
    if (rule.crop !== "none") {
      const short = Math.min(width, height);
      const s = (short * px) / Math.min(rule.short_side_px, Math.max(px, short));
      const left = Math.floor((width - s) / 2), top = Math.floor((height - s) / 2);
      box = [left, top, left + s, top + s];
    }
    pixels = resized(pixels, width, height, px, rule.interpolation, box);
  } else if (width !== px || height !== px) {
    throw new Error(`no rule says how a picture comes to ${px} x ${px} px`);
  }
  if (!(said.dtype in ARRAYS)) throw new Error(`this page can't give a model ${said.dtype}`);
  const x = new ARRAYS[said.dtype](px * px * 3), [low, high] = LIMITS[said.dtype] ?? [];
  const of = (numbers, c) => f(numbers[numbers.length > 1 ? c : 0]);
  for (let i = 0; i < px * px; i++) {
    for (let c = 0; c < 3; c++) {
      let v = f(f(f(f(pixels[i * 3 + c]) / 255) - of(said.mean, c)) / of(said.std, c));
      if ("scale" in said) {
        v = f(v / f(said.scale));
        const down = Math.floor(v), rest = v - down;  // to the nearest, halves to the even one
        v = rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down;
        v = Math.min(high, Math.max(low, v + said.zero_point));
      }
      x[said.layout === "NCHW" ? c * px * px + i : i * 3 + c] = v;
    }
  }
  return x;
}
