// A picture's pixels to the model's input, for Swift: preprocess.h behind plain C.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// RGB bytes (height, width, 3) of a decoded picture, upright. `rgbx` has four bytes per pixel, the
// fourth is passed over; `orientation` is EXIF's, 1 to 8: from 5 on width and height change places.
void edgeres_upright(const uint8_t *rgbx, int32_t width, int32_t height, int32_t orientation,
                     uint8_t *rgb);

// The input's real values, 3 x size_px x size_px, as planes or by pixel, of RGB bytes (height,
// width, 3). short_side_px is 0 where preprocess.json has no rule. Returns 0; 1 where no rule says
// how such a picture comes to the size; 2 for an interpolation that isn't known.
int32_t edgeres_prepared(const uint8_t *rgb, int32_t width, int32_t height, int32_t size_px,
                         int32_t short_side_px, const char *crop, const char *interpolation,
                         const float *mean, int32_t means, const float *std, int32_t stds,
                         int32_t planes, float *values);

#ifdef __cplusplus
}
#endif
