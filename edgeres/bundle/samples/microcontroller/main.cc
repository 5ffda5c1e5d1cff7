// Does this board give the golden outputs? With TFLite Micro. Exit status, as golden_test.py's:
// 0: every output is within the tolerance; 1: they differ; 2: it can't be said here.

#include <cstdint>
#include <cstring>

#include "arena.h"
#include "golden_data.h"
#include "model_data.h"
#include "model_ops.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) uint8_t arena[kArenaBytes];

int Code(const TfLiteTensor* tensor, int i) {
  return tensor->type == kTfLiteInt16 ? tensor->data.i16[i] : tensor->data.int8[i];
}

int Likeliest(const int* codes) {
  int found = 0;
  for (int i = 1; i < kGoldenClasses; i++) {
    if (codes[i] > codes[found]) found = i;
  }
  return found;
}

int CannotTell(const char* why) {
  MicroPrintf("CAN'T TELL: %s", why);
  return 2;
}

}  // namespace

int main() {
  tflite::InitializeTarget();
  const tflite::Model* model = tflite::GetModel(kModel);
  if (model->version() != TFLITE_SCHEMA_VERSION) return CannotTell("another version of TFLite");
  static ModelOps ops;
  if (AddModelOps(ops) != kTfLiteOk) return CannotTell("an operator can't be added");
  static tflite::MicroInterpreter interpreter(model, ops, arena, kArenaBytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    return CannotTell("no memory, or another model: see above, and raise kArenaBytes in arena.h");
  }
  MicroPrintf("arena: %d of %d bytes", static_cast<int>(interpreter.arena_used_bytes()), kArenaBytes);
  TfLiteTensor* input = interpreter.input(0);
  const TfLiteTensor* output = interpreter.output(0);
  const int size = output->type == kTfLiteInt16 ? 2 : 1;
  if (input->bytes != static_cast<size_t>(kGoldenInputBytes) ||
      output->bytes != static_cast<size_t>(kGoldenClasses * size)) {
    return CannotTell("golden_data.cc is about another model");
  }
  int worst = 0;
  bool same = true;
  for (int sample = 0; sample < kGoldenSamples; sample++) {
    memcpy(input->data.raw, kGoldenInputs + sample * kGoldenInputBytes, input->bytes);
    if (interpreter.Invoke() != kTfLiteOk) return CannotTell("the model can't be run");
    const int* expected = kGoldenOutputs + sample * kGoldenClasses;
    int likeliest = 0;
    for (int i = 0; i < kGoldenClasses; i++) {
      const int off = Code(output, i) - expected[i];
      worst = off > worst ? off : -off > worst ? -off : worst;
      if (Code(output, i) > Code(output, likeliest)) likeliest = i;
    }
    same = same && likeliest == Likeliest(expected);
  }
  const bool passed = same && worst <= kGoldenTolerance;
  MicroPrintf("worst difference %d codes, allowed %d; same classes: %s", worst, kGoldenTolerance,
              same ? "yes" : "NO");
  MicroPrintf(passed ? "passed" : "FAILED");
  return passed ? 0 : 1;
}
