#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif
#include "EdgeresPreprocess.h"

#include "preprocess.h"

void edgeres_upright(const uint8_t *rgbx, int32_t width, int32_t height, int32_t orientation,
                     uint8_t *rgb) {
  const bool lies = orientation >= 5 && orientation <= 8;
  const bool right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const int w = lies ? height : width, h = lies ? width : height;
  for (int y = 0; y < h; y++) {
    for (int x = 0; x < w; x++) {
      const int i = lies ? y : x, j = lies ? x : y;
      const size_t column = right ? width - 1 - i : i, line = below ? height - 1 - j : j;
      std::copy_n(rgbx + (line * width + column) * 4, 3, rgb + (size_t(y) * w + x) * 3);
    }
  }
}

int32_t edgeres_prepared(const uint8_t *rgb, int32_t width, int32_t height, int32_t size_px,
                         int32_t short_side_px, const char *crop, const char *interpolation,
                         const float *mean, int32_t means, const float *std, int32_t stds,
                         int32_t planes, float *values) {
  const Picture picture{width, height, {rgb, rgb + size_t(width) * height * 3}};
  Contract said;
  said.size_px = size_px;
  said.scaled = short_side_px > 0;
  said.short_side_px = short_side_px;
  said.crop = crop;
  said.interpolation = interpolation;
  said.mean.assign(mean, mean + means);
  said.std.assign(std, std + stds);
  said.planes = planes != 0;
  if (!said.scaled && (width != size_px || height != size_px)) return 1;
  try {
    const std::vector<float> x = prepared(picture, said);
    std::copy(x.begin(), x.end(), values);
  } catch (const std::exception &) {
    return 2;
  }
  return 0;
}
