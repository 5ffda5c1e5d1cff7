// Does this board give the golden outputs, and what is in a picture? With LiteRT's C API.
//
//     g++ -O2 -std=c++17 -ffp-contract=off -o classify sample/classify.cc -ldl
//     ./classify LIBRARY BUNDLE                 the golden test
//     ./classify LIBRARY BUNDLE PICTURE.ppm...  the likeliest classes of each
//
// LIBRARY is libLiteRt.so, e.g. that in ai-edge-litert's folder; BUNDLE the unpacked bundle; a
// picture is a PPM (P6, 8 bit), upright. Exit status, as golden_test.py's:
//
//     0   every file is what the manifest says, and every output is within the tolerance (or the
//         pictures were classified)
//     1   a file is missing or was changed, or the outputs differ
//     2   it can't be said here: the library or a picture can't be used, or this is no bundle

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <numeric>
#include <sstream>

#include "document.h"
#include "litert.h"
#include "preprocess.h"
#include "sha256.h"

namespace {

constexpr size_t kShown = 5, kMostBytes = size_t(1) << 28;

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream found;
  if (!file || !(found << file.rdbuf())) throw std::runtime_error(path + " can't be read");
  if (found.tellp() > std::streamoff(kMostBytes)) throw std::runtime_error(path + " is too large");
  return found.str();
}

// Somebody's text on one line.
std::string printable(std::string text) {
  for (char& c : text) if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  return text;
}

// Whether every file is what the manifest says; a line for each that isn't.
bool whole(const std::string& folder, const Document& manifest) {
  bool found = true;
  if (manifest["sha256"].fields().empty()) throw std::runtime_error("the manifest names no files");
  for (const auto& [name, sum] : manifest["sha256"].fields()) {
    const bool outside = name.find("..") != std::string::npos || name[0] == '/';
    const char* wrong = nullptr;
    try {
      if (outside || sha256(contents(folder + "/" + name)) != sum.text()) wrong = "CHANGED";
    } catch (const std::exception&) {
      wrong = "MISSING";
    }
    if (wrong) std::printf("%s: %s; unpack the bundle anew\n", wrong, printable(name).c_str());
    found &= !wrong;
  }
  return found;
}

std::vector<int> numbers(const Document& list) {
  std::vector<int> found;
  for (const Document& each : list.list()) found.push_back(int(each.number()));
  return found;
}

std::vector<float> reals(const Document& list) {
  std::vector<float> found;
  for (const Document& each : list.list()) found.push_back(float(each.number()));
  return found;
}

Contract contract(const Document& said) {
  if (said.has("then"))
    throw std::runtime_error("this sample doesn't do the second scaling of preprocess.json");
  Contract found;
  found.size_px = int(said["size_px"].number());
  if (said.has("resize")) {
    const Document& rule = said["resize"];
    found.scaled = true;
    found.size_px = int(rule["size_px"].number());
    found.short_side_px = int(rule["short_side_px"].number());
    found.crop = rule["crop"].text();
    found.interpolation = rule["interpolation"].text();
  }
  found.mean = reals(said["mean"]), found.std = reals(said["std"]);
  found.dtype = said["dtype"].text();
  found.planes = said["layout"].text() == "NCHW";
  if (said.has("scale")) {
    found.codes = true;
    found.scale = float(said["scale"].number());
    found.zero_point = int(said["zero_point"].number());
  }
  return found;
}

Picture ppm(const std::string& path) {
  const std::string content = contents(path);
  Picture found;
  int read = 0, most = 0, &w = found.width, &h = found.height;
  const bool header = std::sscanf(content.c_str(), "P6 %d %d %d%n", &w, &h, &most, &read) == 3;
  if (!header || most != 255 || w < 1 || h < 1 || w > 65536 || h > 65536)
    throw std::runtime_error(path + " is no PPM (P6, 8 bit, no comments)");
  const size_t size = size_t(w) * h * 3, begin = size_t(read) + 1;
  if (content.size() < begin + size) throw std::runtime_error(path + " ends too early");
  found.pixels.assign(content.begin() + begin, content.begin() + begin + size);
  return found;
}

template <typename Number>
void append(std::string& bytes, float value) {
  const Number number = Number(value);
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}

// Values as the file's type.
std::string encoded(const std::vector<float>& x, const std::string& dtype) {
  std::string bytes;
  for (const float v : x) {
    if (dtype == "int8") append<int8_t>(bytes, v);
    else if (dtype == "uint8") append<uint8_t>(bytes, v);
    else if (dtype == "int16") append<int16_t>(bytes, v);
    else append<float>(bytes, v);
  }
  return bytes;
}

template <typename Number>
std::vector<double> widened(const char* bytes, size_t size) {
  std::vector<Number> found(size / sizeof(Number));
  std::memcpy(found.data(), bytes, size);
  return {found.begin(), found.end()};
}

// The numbers in bytes of a type.
std::vector<double> decoded(const char* bytes, size_t size, const std::string& dtype) {
  if (dtype == "int8") return widened<int8_t>(bytes, size);
  if (dtype == "uint8") return widened<uint8_t>(bytes, size);
  if (dtype == "int16") return widened<int16_t>(bytes, size);
  return widened<float>(bytes, size);
}

size_t likeliest(const std::vector<double>& y) {
  return std::max_element(y.begin(), y.end()) - y.begin();
}

bool golden_test(LiteRt& model, const std::string& folder, const Document& golden,
                 const LiteRt::Type& in, const LiteRt::Type& out) {
  const std::string inputs = contents(folder + "/golden/inputs.bin");
  const std::string outputs = contents(folder + "/golden/outputs.bin");
  const std::string dtype = golden["output"]["dtype"].text();
  const size_t samples = size_t(golden["samples"].number());
  if (samples == 0 || inputs.size() != samples * in.bytes || outputs.size() != samples * out.bytes)
    throw std::runtime_error("golden/ has other sizes than golden.json says");
  double worst = 0;
  bool same = true;
  for (size_t i = 0; i < samples; i++) {
    const std::vector<char> found = model.run(&inputs[i * in.bytes]);
    const std::vector<double> y = decoded(found.data(), found.size(), dtype);
    const std::vector<double> expected = decoded(&outputs[i * out.bytes], out.bytes, dtype);
    for (size_t k = 0; k < y.size(); k++) {
      const double off = std::fabs(y[k] - expected[k]);
      worst = off <= worst ? worst : off;  // a NaN stays
    }
    same &= likeliest(y) == likeliest(expected);
  }
  const double allowed = golden["tolerance"].number();
  std::printf("worst difference %g%s, allowed %g; same classes: %s\n", worst,
              dtype == "float32" ? "" : " codes", allowed, same ? "yes" : "NO");
  return same && worst <= allowed;
}

// A softmax over the outputs, as numbers.
std::vector<double> probabilities(std::vector<double> y, const Document& output) {
  if (output.has("quantization") && output["quantization"].has("scale")) {
    const Document& codes = output["quantization"];
    const double scale = codes["scale"].list().at(0).number();
    const double zero = codes["zero_point"].list().at(0).number();
    for (double& v : y) v = (v - zero) * scale;
  }
  const double top = y[likeliest(y)];
  double sum = 0;
  for (double& v : y) sum += v = std::exp(v - top);
  for (double& v : y) v /= sum;
  return y;
}

// What the certificate says of the model's outputs.
const Document& certified_output(const Document& certificate, const std::string& target) {
  for (const Document& row : certificate["files"].list())
    if (row["target"].text() == target) return row["file"]["output"];
  throw std::runtime_error("certificate.json says nothing of " + target);
}

void name(LiteRt& model, const std::string& folder, const std::string& path, const Contract& said,
          const LiteRt::Type& in, const std::string& dtype, const Document& output) {
  std::vector<std::string> labels;
  std::istringstream lines(contents(folder + "/labels.txt"));
  for (std::string line; std::getline(lines, line);) labels.push_back(printable(line));
  const std::string x = encoded(prepared(ppm(path), said), said.dtype);
  if (x.size() != in.bytes) throw std::runtime_error("preprocess.json is about another input");
  const std::vector<char> raw = model.run(x.data());
  const std::vector<double> y = probabilities(decoded(raw.data(), raw.size(), dtype), output);
  std::vector<size_t> order(y.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return y[a] > y[b]; });
  std::printf("%s\n", printable(path).c_str());
  for (size_t i = 0; i < std::min(kShown, order.size()); i++)
    std::printf("  %5.1f%%  %s\n", 100 * y[order[i]], labels.at(order[i]).c_str());
}

int run(const std::vector<std::string>& args) {
  if (args.size() < 2) throw std::runtime_error("classify LIBRARY BUNDLE [PICTURE.ppm...]");
  const std::string& folder = args[1];
  const Document manifest(contents(folder + "/manifest.json"));
  if (!whole(folder, manifest)) return 1;
  const Document golden(contents(folder + "/golden/golden.json"));
  const auto type = [&](const char* name) {
    std::vector<int> shape = numbers(golden[name]["shape"]);
    shape.insert(shape.begin(), 1);
    return LiteRt::Type(golden[name]["dtype"].text(), shape);
  };
  const LiteRt::Type in = type("input"), out = type("output");
  LiteRt model(args[0], folder + "/" + golden["model"].text(), in, out);
  if (args.size() == 2) {
    const bool passed = golden_test(model, folder, golden, in, out);
    std::puts(passed ? "passed" : "FAILED");
    return passed ? 0 : 1;
  }
  const Contract said = contract(Document(contents(folder + "/preprocess.json")));
  const Document certificate(contents(folder + "/certificate.json"));
  const Document& output = certified_output(certificate, manifest["target"].text());
  for (size_t i = 2; i < args.size(); i++)
    name(model, folder, args[i], said, in, golden["output"]["dtype"].text(), output);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::printf("CAN'T TELL: %s\n", printable(error.what()).c_str());
    return 2;
  }
}
