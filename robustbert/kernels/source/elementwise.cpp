// Work on every element in one pass over memory: LayerNorm(residual + dropout(x + bias)) and GELU(x + bias), forward and backward, and
// the sum of squares. Sums over rows are made of chunks of a fixed size, so they do not depend on the number of threads.

#include "dropout.h"

namespace {

constexpr int kChunk = 32;                // rows whose sums are added up first
constexpr long kNumbersOfAChunk = 1 << 16;  // of a sum of squares

template <class T>
void forward(const T* x, const T* bias, const T* residual, const T* weight, const T* shift, int num_rows, int width, float eps,
             const Dropout& dropout, T* sums, T* out, float* mean, float* inverse_deviation, int num_threads) {
#pragma omp parallel num_threads(num_threads)
  {
    float* factors = new float[width + kDraws];
#pragma omp for schedule(static)
    for (int row = 0; row < num_rows; ++row) {
      const long start = long(row) * width;
      if (dropout.threshold > 0) dropout.draw(row, 0, width, factors);
      Floats total{};
      for (int column = 0; column < width; column += kLanes) {
        Floats value = load(x + start + column);
        if (bias != nullptr) value += load(bias + column);
        if (dropout.threshold > 0) value *= load(factors + column);
        value += load(residual + start + column);
        store(sums + start + column, value);
        total += load(sums + start + column);  // as rounded: what the backward pass has
      }
      const float average = sum(total) / width;
      Floats squares{};
      for (int column = 0; column < width; column += kLanes) {
        Floats centred = load(sums + start + column) - average;
        squares += centred * centred;
      }
      const float inverse = 1.0f / std::sqrt(sum(squares) / width + eps);
      mean[row] = average;
      inverse_deviation[row] = inverse;
      for (int column = 0; column < width; column += kLanes)
        store(out + start + column, (load(sums + start + column) - average) * inverse * load(weight + column) + load(shift + column));
    }
    delete[] factors;
  }
}

// partial: fp32 (chunks, 3, width), of the weight, the shift and the bias.
template <class T>
void backward(const T* upstream, const T* sums, const T* weight, const float* mean, const float* inverse_deviation, int num_rows,
              int width, const Dropout& dropout, T* x_gradient, T* residual_gradient, float* partial, int num_threads) {
#pragma omp parallel num_threads(num_threads)
  {
    float* factors = new float[width + kDraws];
#pragma omp for schedule(static)
    for (int chunk = 0; chunk < (num_rows + kChunk - 1) / kChunk; ++chunk) {
      float* weight_sum = partial + 3l * chunk * width;
      float *shift_sum = weight_sum + width, *bias_sum = shift_sum + width;
      std::fill(weight_sum, weight_sum + 3l * width, 0.0f);
      for (int row = chunk * kChunk; row < std::min(num_rows, (chunk + 1) * kChunk); ++row) {
        const long start = long(row) * width;
        const float average = mean[row], inverse = inverse_deviation[row];
        Floats total{}, products{};
        for (int column = 0; column < width; column += kLanes) {
          Floats above = load(upstream + start + column), normal = (load(sums + start + column) - average) * inverse;
          store(weight_sum + column, load(weight_sum + column) + above * normal);
          store(shift_sum + column, load(shift_sum + column) + above);
          above *= load(weight + column);
          total += above;
          products += above * normal;
        }
        const float average_above = sum(total) / width, average_product = sum(products) / width;
        if (dropout.threshold > 0) dropout.draw(row, 0, width, factors);
        for (int column = 0; column < width; column += kLanes) {
          Floats normal = (load(sums + start + column) - average) * inverse;
          Floats gradient = (load(upstream + start + column) * load(weight + column) - average_above - normal * average_product) * inverse;
          store(residual_gradient + start + column, gradient);
          if (dropout.threshold > 0) gradient *= load(factors + column);
          if (x_gradient != residual_gradient) store(x_gradient + start + column, gradient);
          store(bias_sum + column, load(bias_sum + column) + gradient);
        }
      }
    }
    delete[] factors;
  }
}

// The standard normal distribution's share below x, and its density at x. The error function is of Abramowitz and Stegun, 7.1.26: its
// error is below 1.5e-7.
inline Floats normal_share(Floats x, Floats& density) {
  Floats magnitude = (x < 0.0f ? -x : x) * 0.70710678118654752f;
  Floats t = 1.0f / (1.0f + 0.3275911f * magnitude);
  Floats y = all(1.061405429f);
  y = y * t - 1.453152027f;
  y = y * t + 1.421413741f;
  y = y * t - 0.284496736f;
  y = y * t + 0.254829592f;
  Floats decay = exp_negative(-(magnitude * magnitude));
  Floats tail = 0.5f * y * t * decay;
  density = decay * 0.39894228040143268f;
  return x < 0.0f ? tail : 1.0f - tail;
}

template <class T>
void gelu_forward(const T* x, const T* bias, int num_rows, int width, T* out, int num_threads) {
#pragma omp parallel for schedule(static) num_threads(num_threads)
  for (int row = 0; row < num_rows; ++row) {
    const long start = long(row) * width;
    for (int column = 0; column < width; column += kLanes) {
      Floats value = load(x + start + column), density;
      if (bias != nullptr) value += load(bias + column);
      store(out + start + column, value * normal_share(value, density));
    }
  }
}

// partial: fp32 (chunks, width), of the bias.
template <class T>
void gelu_backward(const T* upstream, const T* x, const T* bias, int num_rows, int width, T* gradient, float* partial, int num_threads) {
#pragma omp parallel for schedule(static) num_threads(num_threads)
  for (int chunk = 0; chunk < (num_rows + kChunk - 1) / kChunk; ++chunk) {
    float* bias_sum = partial + long(chunk) * width;
    std::fill(bias_sum, bias_sum + width, 0.0f);
    for (int row = chunk * kChunk; row < std::min(num_rows, (chunk + 1) * kChunk); ++row) {
      const long start = long(row) * width;
      for (int column = 0; column < width; column += kLanes) {
        Floats value = load(x + start + column), density;
        if (bias != nullptr) value += load(bias + column);
        Floats share = normal_share(value, density);
        Floats result = load(upstream + start + column) * (share + value * density);
        store(gradient + start + column, result);
        store(bias_sum + column, load(bias_sum + column) + result);
      }
    }
  }
}

}  // namespace

extern "C" {

// bias: null if x has it already.
void gelu_forward(int is_bf16, const void* x, const void* bias, int num_rows, int width, void* out, int num_threads) {
  if (is_bf16)
    gelu_forward((const bfloat16*)x, (const bfloat16*)bias, num_rows, width, (bfloat16*)out, num_threads);
  else
    gelu_forward((const float*)x, (const float*)bias, num_rows, width, (float*)out, num_threads);
}

void gelu_backward(int is_bf16, const void* upstream, const void* x, const void* bias, int num_rows, int width, void* gradient,
                   float* partial, int num_threads) {
  if (is_bf16)
    gelu_backward((const bfloat16*)upstream, (const bfloat16*)x, (const bfloat16*)bias, num_rows, width, (bfloat16*)gradient, partial,
                  num_threads);
  else
    gelu_backward((const float*)upstream, (const float*)x, (const float*)bias, num_rows, width, (float*)gradient, partial, num_threads);
}

// Of `count` numbers, in fp64. partial: one sum a chunk, for the caller to add.
void sums_of_squares(const float* numbers, long count, double* partial, int num_threads) {
  using Doubles = double __attribute__((vector_size(8 * kLanes)));
#pragma omp parallel for schedule(static) num_threads(num_threads)
  for (long chunk = 0; chunk < (count + kNumbersOfAChunk - 1) / kNumbersOfAChunk; ++chunk) {
    const long stop = std::min(count, (chunk + 1) * kNumbersOfAChunk);
    long at = chunk * kNumbersOfAChunk;
    Doubles squares{};
    for (; at + kLanes <= stop; at += kLanes) {
      Doubles wide = __builtin_convertvector(load(numbers + at), Doubles);
      squares += wide * wide;
    }
    double total = 0;
    for (int lane = 0; lane < kLanes; ++lane) total += squares[lane];
    for (; at < stop; ++at) total += double(numbers[at]) * numbers[at];
    partial[chunk] = total;
  }
}

long numbers_of_a_chunk() { return kNumbersOfAChunk; }

// bias: null if x has it already. sums: residual + dropout(x + bias), for the backward pass.
void add_and_norm_forward(int is_bf16, const void* x, const void* bias, const void* residual, const void* weight, const void* shift,
                          int num_rows, int width, double eps, double dropout, uint64_t seed, void* sums, void* out, float* mean,
                          float* inverse_deviation, int num_threads) {
  const Dropout drawn(seed, dropout);
  if (is_bf16)
    forward((const bfloat16*)x, (const bfloat16*)bias, (const bfloat16*)residual, (const bfloat16*)weight, (const bfloat16*)shift, num_rows,
            width, float(eps), drawn, (bfloat16*)sums, (bfloat16*)out, mean, inverse_deviation, num_threads);
  else
    forward((const float*)x, (const float*)bias, (const float*)residual, (const float*)weight, (const float*)shift, num_rows, width,
            float(eps), drawn, (float*)sums, (float*)out, mean, inverse_deviation, num_threads);
}

// x_gradient may be residual_gradient: without dropout they are the same.
void add_and_norm_backward(int is_bf16, const void* upstream, const void* sums, const void* weight, const float* mean,
                           const float* inverse_deviation, int num_rows, int width, double dropout, uint64_t seed, void* x_gradient,
                           void* residual_gradient, float* partial, int num_threads) {
  const Dropout drawn(seed, dropout);
  if (is_bf16)
    backward((const bfloat16*)upstream, (const bfloat16*)sums, (const bfloat16*)weight, mean, inverse_deviation, num_rows, width, drawn,
             (bfloat16*)x_gradient, (bfloat16*)residual_gradient, partial, num_threads);
  else
    backward((const float*)upstream, (const float*)sums, (const float*)weight, mean, inverse_deviation, num_rows, width, drawn,
             (float*)x_gradient, (float*)residual_gradient, partial, num_threads);
}

int rows_of_a_chunk() { return kChunk; }
}
