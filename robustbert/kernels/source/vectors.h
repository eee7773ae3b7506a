// Vectors of numbers as wide as the processor's registers, and bfloat16 in memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {


#ifdef __AVX512F__
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
using Floats = float __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
using Words = uint32_t __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
using Ints = int32_t __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
using Halves = uint16_t __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));


struct bfloat16 {
  uint16_t bits;
};

inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
inline Floats load(const bfloat16* p) {
  Words wide = __builtin_convertvector(*reinterpret_cast<const Halves*>(p), Words) << 16;
  return reinterpret_cast<Floats&>(wide);
}
inline float load_one(const float* p) { return *p; }
inline float load_one(const bfloat16* p) {
  uint32_t bits = uint32_t(p->bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// To the nearest, ties to even, in the low 16 bits. Not for NaN with a mantissa of ones only, which no arithmetic here gives.
inline Words rounded(Floats x) {
  Words bits = reinterpret_cast<Words&>(x);
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
inline void store(float* p, Floats x) { *reinterpret_cast<Floats*>(p) = x; }
inline void store(bfloat16* p, Floats x) { *reinterpret_cast<Halves*>(p) = __builtin_convertvector(rounded(x), Halves); }

inline Floats all(float x) { return x - Floats{}; }

inline float sum(Floats x) {
  float total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += x[lane];
  return total;
}

// exp(x) for x <= 0 with a relative error of 2e-7; 0 below -87.
inline Floats exp_negative(Floats x) {
  Floats clamped = x > -87.0f ? x : all(-87.0f);
  Floats scaled = clamped * 1.44269504088896341f;
  Ints power = __builtin_convertvector(scaled - 0.5f, Ints);  // towards zero, which is to the nearest for what is negative
  Floats whole = __builtin_convertvector(power, Floats);
  Floats rest = (clamped - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Floats y = all(1.9875691500e-4f);
  y = y * rest + 1.3981999507e-3f;
  y = y * rest + 8.3334519073e-3f;
  y = y * rest + 4.1665795894e-2f;
  y = y * rest + 1.6666665459e-1f;
  y = y * rest + 5.0000001201e-1f;
  y = y * rest * rest + rest + 1.0f;
  Ints exponent = (power + 127) << 23;
  y *= reinterpret_cast<Floats&>(exponent);
  return x > -87.0f ? y : Floats{};
}

}  // namespace
