// Dropout whose numbers are a function of (seed, matrix, row, column): the backward pass draws the forward pass' numbers again.
#pragma once

#include "vectors.h"

namespace {

// The numbers do not depend on the processor: 16 counters at a time on all of them.
constexpr int kCounters = 16;
constexpr int kDraws = 8 * kCounters;  // random numbers of one evaluation of the generator
using Counters = uint32_t __attribute__((vector_size(4 * kCounters)));
using SignedCounters = int32_t __attribute__((vector_size(4 * kCounters)));
using Factors = float __attribute__((vector_size(4 * kCounters), aligned(4), may_alias));

// Philox 4x32 with 7 rounds (Salmon et al., 2011).
struct Key {
  uint32_t low, high;
};

inline void multiply(Counters x, uint32_t by, Counters& high, Counters& low) {
  typedef uint64_t Wide __attribute__((vector_size(8 * kCounters)));
  Wide product = __builtin_convertvector(x, Wide) * uint64_t(by);
  high = __builtin_convertvector(product >> 32, Counters);
  low = x * by;
}

// What the kDraws columns from `group` * kDraws on of a row are multiplied by: 0 with probability threshold / 2^16, else `scale`.
inline void draw_group(Key key, uint32_t group, uint32_t row, uint32_t matrix, uint32_t threshold, float scale, float* factors) {
  Counters a{}, b = Counters{} + row, c = Counters{} + matrix, d{};
  for (int lane = 0; lane < kCounters; ++lane) a[lane] = group * kCounters + lane;
  uint32_t low = key.low, high = key.high;
  for (int round = 0; round < 7; ++round) {
    Counters high_a, low_a, high_c, low_c;
    multiply(a, 0xD2511F53u, high_a, low_a);
    multiply(c, 0xCD9E8D57u, high_c, low_c);
    a = high_c ^ b ^ low;
    b = low_c;
    c = high_a ^ d ^ high;
    d = low_a;
    low += 0x9E3779B9u;
    high += 0xBB67AE85u;
  }
  const Counters words[4] = {a, b, c, d};
  const Factors kept = scale - Factors{};
  for (int i = 0; i < 4; ++i) {
    for (int half = 0; half < 2; ++half) {
      const SignedCounters drawn = SignedCounters(half ? words[i] >> 16 : words[i] & 0xffffu);
      *reinterpret_cast<Factors*>(factors + (2 * i + half) * kCounters) = drawn >= int32_t(threshold) ? kept : Factors{};
    }
  }
}

// A dropout's share in 16 bits, and what keeps the expectation for exactly that share.
struct Dropout {
  Key key;
  uint32_t threshold;
  float scale;

  Dropout(uint64_t seed, double share)
      : key{uint32_t(seed), uint32_t(seed >> 32)}, threshold(uint32_t(share * 65536 + 0.5)), scale(65536.0f / (65536 - threshold)) {}

  // factors: of `columns`, rounded up to a multiple of kDraws.
  void draw(uint32_t row, uint32_t matrix, int columns, float* factors) const {
    for (int first = 0, group = 0; first < columns; first += kDraws, ++group)
      draw_group(key, group, row, matrix, threshold, scale, factors + first);
  }
};

}  // namespace
