// Test images as the model takes them, and the codes that it should give for each class.
#pragma once

extern const int kGoldenSamples, kGoldenInputBytes, kGoldenClasses, kGoldenTolerance;
extern const unsigned char kGoldenInputs[];
extern const int kGoldenOutputs[];
