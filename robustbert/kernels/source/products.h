// Matrix products blocked by registers over 32-bit units: a unit is one float, or two neighbouring bfloat16 of the summed dimension
// if the processor multiplies such pairs (AVX512-BF16). Without it bfloat16 is widened when a matrix is packed.
#pragma once

#include "vectors.h"

namespace {

constexpr int kPanel = 64;  // columns of a packed matrix that lie together
constexpr int kRows = 6;    // rows of the product that registers hold

#ifdef __AVX512BF16__
inline void store_unit_rows(uint32_t* units, Floats first, Floats second) {
  *reinterpret_cast<Words*>(units) = rounded(first) | rounded(second) << 16;
}
#endif

// How numbers of type T become units of the summed dimension.
template <class T>
struct Units {
  static constexpr int kNumbers = 1;  // a unit
  using Row = float;                  // what a row of a left-hand matrix is kept as
  static inline Floats add(Floats sum, uint32_t left, Floats right) {
    float factor;
    std::memcpy(&factor, &left, 4);
    return sum + factor * right;
  }
};

#ifdef __AVX512BF16__
template <>
struct Units<bfloat16> {
  static constexpr int kNumbers = 2;
  using Row = bfloat16;
  static inline Floats add(Floats sum, uint32_t left, Floats right) {
    return Floats(_mm512_dpbf16_ps(__m512(sum), __m512bh(_mm512_set1_epi32(int(left))), __m512bh(right)));
  }
};
#endif

// sums (rows x vectors * kLanes) = or += left (rows x depth units) @ right (depth x width units, one panel).
template <class T, int rows, int vectors>
inline void product_of_registers(const uint32_t* left, long left_row, long left_unit, const uint32_t* right, long right_unit, int depth,
                                 float* sums, long sums_row, bool adds) {
  Floats held[rows][vectors];
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < vectors; ++j) held[i][j] = adds ? load(sums + i * sums_row + j * kLanes) : Floats{};
  for (int k = 0; k < depth; ++k) {
    Floats columns[vectors];
    for (int j = 0; j < vectors; ++j) columns[j] = load(reinterpret_cast<const float*>(right + k * right_unit + j * kLanes));
    for (int i = 0; i < rows; ++i) {
      uint32_t unit = left[i * left_row + k * left_unit];
      for (int j = 0; j < vectors; ++j) held[i][j] = Units<T>::add(held[i][j], unit, columns[j]);
    }
  }
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < vectors; ++j) store(sums + i * sums_row + j * kLanes, held[i][j]);
}

template <class T, int vectors>
void product_of_panel(const uint32_t* left, long left_row, long left_unit, int num_rows, const uint32_t* right, long right_unit,
                      int depth, float* sums, long sums_row, bool adds) {
  int i = 0;
  for (; i + kRows <= num_rows; i += kRows)
    product_of_registers<T, kRows, vectors>(left + i * left_row, left_row, left_unit, right, right_unit, depth, sums + i * sums_row, sums_row, adds);
  for (; i + 2 <= num_rows; i += 2)
    product_of_registers<T, 2, vectors>(left + i * left_row, left_row, left_unit, right, right_unit, depth, sums + i * sums_row, sums_row, adds);
  if (i < num_rows)
    product_of_registers<T, 1, vectors>(left + i * left_row, left_row, left_unit, right, right_unit, depth, sums + i * sums_row, sums_row, adds);
}

// right: packed in panels of kPanel columns, [panel][unit][column].
template <class T>
void product(const uint32_t* left, long left_row, long left_unit, int num_rows, const uint32_t* right, int num_columns, int depth,
             float* sums, long sums_row, bool adds) {
  constexpr int kVectors = 4;
  for (int first = 0; first < num_columns; first += kPanel) {
    const uint32_t* panel = right + long(first) * depth;
    int width = std::min(kPanel, num_columns - first);
    int column = 0;
    for (; column + kVectors * kLanes <= width; column += kVectors * kLanes)
      product_of_panel<T, kVectors>(left, left_row, left_unit, num_rows, panel + column, kPanel, depth, sums + first + column, sums_row, adds);
    for (; column < width; column += kLanes)
      product_of_panel<T, 1>(left, left_row, left_unit, num_rows, panel + column, kPanel, depth, sums + first + column, sums_row, adds);
  }
}

}  // namespace
