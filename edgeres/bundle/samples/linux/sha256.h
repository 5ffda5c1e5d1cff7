// SHA-256 (FIPS 180-4) in hexadecimal.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

inline std::string sha256(std::string data) {
  static const auto primes = [] {  // the roots' first 32 bits behind the point: 64 cube, 8 square
    struct { uint32_t k[64], h[8]; } found{};
    const auto fraction = [](double root) {
      return uint32_t((root - std::floor(root)) * 4294967296.0);
    };
    for (int n = 2, count = 0; count < 64; n++) {
      bool prime = true;
      for (int d = 2; d * d <= n; d++) prime &= n % d != 0;
      if (!prime) continue;
      if (count < 8) found.h[count] = fraction(std::sqrt(double(n)));
      found.k[count++] = fraction(std::cbrt(double(n)));
    }
    return found;
  }();
  uint32_t h[8];
  std::copy(primes.h, primes.h + 8, h);
  const uint64_t bits = uint64_t(data.size()) * 8;
  data += char(0x80);
  while (data.size() % 64 != 56) data += char(0);
  for (int shift = 56; shift >= 0; shift -= 8) data += char(bits >> shift);
  const auto turned = [](uint32_t x, int by) { return x >> by | x << (32 - by); };
  for (size_t at = 0; at < data.size(); at += 64) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 64; i++) {
      if (i < 16) {
        w[i] = 0;
        for (int b = 0; b < 4; b++) w[i] = w[i] << 8 | uint8_t(data[at + i * 4 + b]);
      } else {
        const uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (turned(a, 7) ^ turned(a, 18) ^ a >> 3) + w[i - 7] +
               (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
      }
    }
    std::copy(h, h + 8, v);
    for (int i = 0; i < 64; i++) {
      const uint32_t e = v[4], a = v[0];
      const uint32_t one = v[7] + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) +
                           ((e & v[5]) ^ (~e & v[6])) + primes.k[i] + w[i];
      const uint32_t two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) +
                           ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
      for (int k = 7; k > 0; k--) v[k] = v[k - 1];
      v[4] += one, v[0] = one + two;
    }
    for (int k = 0; k < 8; k++) h[k] += v[k];
  }
  std::string found;
  for (const uint32_t word : h)
    for (int shift = 28; shift >= 0; shift -= 4) found += "0123456789abcdef"[word >> shift & 15];
  return found;
}
