// The model file, in flash.
#pragma once

extern const unsigned char kModel[];
extern const unsigned int kModelBytes;
