// A picture's pixels -> the model's input, by the numbers of preprocess.json. Pillow's arithmetic:
// its resize in fixed point (two passes, 22 bits; as Pillow 13 orders them), the rest in float32.
// Compile with -ffp-contract=off: fused multiplications round otherwise.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {  // RGB bytes, (height, width, 3)
  int width = 0, height = 0;
  std::vector<uint8_t> pixels;
};

// What preprocess.json says.
struct Contract {
  int size_px = 0;
  bool scaled = false;  // whether it has a rule for pictures of other sizes:
  int short_side_px = 0;
  std::string crop, interpolation;
  std::vector<float> mean, std;  // of pixel / 255; one number or three
  std::string dtype;
  bool planes = false;   // NCHW
  bool codes = false;    // whether values become codes:
  float scale = 1;
  int zero_point = 0;
};

namespace pillow {

constexpr int kBits = 22;

inline double reach(const std::string& name) {
  if (name == "box") return 0.5;
  if (name == "bilinear") return 1;
  if (name == "bicubic") return 2;
  if (name == "lanczos") return 3;
  throw std::runtime_error("preprocess.json: no interpolation: " + name);
}

inline double sinc(double x) {
  return x == 0 ? 1 : std::sin(x * 3.14159265358979323846) / (x * 3.14159265358979323846);
}

inline double filter(const std::string& name, double x) {
  if (name == "box") return x > -0.5 && x <= 0.5 ? 1 : 0;
  if (name == "bilinear") return std::max(0.0, 1 - std::fabs(x));
  if (name == "bicubic") {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
  }
  return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

// One pass: `lines` lines of `size` pixels become lines of `out`. Steps are in bytes.
struct Pass {
  int lines, line, step, out_line, out_step, size;
  float from, to;
};

inline std::vector<uint8_t> pass(const std::vector<uint8_t>& in, const Pass& p, int out,
                                 const std::string& name) {
  std::vector<uint8_t> made(size_t(p.lines) * out * 3);
  const double scale = double(p.to - p.from) / out, stretch = std::max(scale, 1.0);
  const double support = reach(name) * stretch;
  for (int i = 0; i < out; i++) {
    const double center = p.from + (i + 0.5) * scale;
    const int first = std::max(0, int(center - support + 0.5));
    const int last = std::min(p.size, int(center + support + 0.5));
    std::vector<double> w(last - first);
    double sum = 0;
    for (size_t k = 0; k < w.size(); k++) {
      w[k] = filter(name, (first + double(k) - center + 0.5) * (1 / stretch));
      sum += w[k];
    }
    std::vector<int64_t> whole(w.size());
    for (size_t k = 0; k < w.size(); k++) {
      const double v = (sum != 0 ? w[k] / sum : w[k]) * (1 << kBits);
      whole[k] = int64_t(v < 0 ? v - 0.5 : v + 0.5);
    }
    for (int line = 0; line < p.lines; line++) {
      for (int c = 0; c < 3; c++) {
        int64_t total = 1 << (kBits - 1);
        const uint8_t* at = in.data() + size_t(line) * p.line + size_t(first) * p.step + c;
        for (size_t k = 0; k < whole.size(); k++) total += at[k * p.step] * whole[k];
        made[size_t(line) * p.out_line + size_t(i) * p.out_step + c] =
            uint8_t(std::clamp<int64_t>(total >> kBits, 0, 255));
      }
    }
  }
  return made;
}

// The part of a picture from left, top to right, bottom as (px, px, 3).
inline std::vector<uint8_t> resized(const Picture& picture, int px, const std::string& name,
                                    float left, float top, float right, float bottom) {
  const int width = picture.width, height = picture.height;
  const bool cut = left == std::floor(left) && top == std::floor(top) && right - left == px &&
                   bottom - top == px;
  if (name == "nearest" || cut) {
    std::vector<uint8_t> made(size_t(px) * px * 3);
    const double dx = double(right - left) / px, dy = double(bottom - top) / px;
    double y = top + dy * 0.5;
    for (int j = 0; j < px; j++, y += dy) {
      double x = left + dx * 0.5;
      for (int i = 0; i < px; i++, x += dx) {
        const int row = std::min(height - 1, int(y)), column = std::min(width - 1, int(x));
        std::copy_n(&picture.pixels[(size_t(row) * width + column) * 3], 3, &made[(size_t(j) * px + i) * 3]);
      }
    }
    return made;
  }
  const bool across = px != width || left != 0 || right != width;
  const bool down = px != height || top != 0 || bottom != height;
  // Pillow 13 makes the lines fewer first, where that is less work; earlier ones never do.
  const bool down_first = height > px && height - px > 2 * (width - px);
  const std::vector<uint8_t>* at = &picture.pixels;
  std::vector<uint8_t> made;
  int w = width, h = height;
  for (const bool vertical : {down_first, !down_first}) {
    if (vertical && down) {
      made = pass(*at, {w, 3, w * 3, 3, w * 3, height, top, bottom}, px, name);
      h = px;
    } else if (!vertical && across) {
      made = pass(*at, {h, w * 3, 3, px * 3, 3, width, left, right}, px, name);
      w = px;
    } else {
      continue;
    }
    at = &made;
  }
  return *at;
}

}  // namespace pillow

// A picture as real values or codes of the input, (H, W, 3), or (3, H, W) for planes.
inline std::vector<float> prepared(const Picture& picture, const Contract& said) {
  const int px = said.size_px, width = picture.width, height = picture.height;
  std::vector<uint8_t> scaled;
  if (said.scaled) {
    double left = 0, top = 0, right = width, bottom = height;
    if (said.crop != "none") {
      const int least = std::min(width, height);
      const double s = double(least) * px / std::min(said.short_side_px, std::max(px, least));
      left = std::floor((width - s) / 2), top = std::floor((height - s) / 2);
      right = left + s, bottom = top + s;
    }
    scaled = pillow::resized(picture, px, said.interpolation, float(left), float(top), float(right),
                             float(bottom));
  } else if (width != px || height != px) {
    throw std::runtime_error("no rule says how a picture comes to " + std::to_string(px) + " x " +
                             std::to_string(px) + " px");
  }
  const std::vector<uint8_t>& rgb = said.scaled ? scaled : picture.pixels;
  const float low = said.dtype == "uint8" ? 0 : said.dtype == "int8" ? -128 : -32768;
  const float high = said.dtype == "uint8" ? 255 : said.dtype == "int8" ? 127 : 32767;
  std::vector<float> x(rgb.size());
  const size_t pixels = rgb.size() / 3;
  for (size_t i = 0; i < pixels; i++) {
    for (size_t c = 0; c < 3; c++) {
      const float mean = said.mean[said.mean.size() > 1 ? c : 0];
      const float std = said.std[said.std.size() > 1 ? c : 0];
      float v = (rgb[i * 3 + c] / 255.0f - mean) / std;
      if (said.codes) v = std::clamp(std::nearbyint(v / said.scale) + said.zero_point, low, high);
      x[said.planes ? c * pixels + i : i * 3 + c] = v;
    }
  }
  return x;
}
