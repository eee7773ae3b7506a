// Self-attention with dropout, forward and backward. The scores of kQueries queries exist at a time, never those of a whole row of
// tokens, and the backward pass computes them again. One thread has a row of tokens and a head, so the number of threads changes no bit.

#include "dropout.h"
#include "products.h"

namespace {

constexpr int kQueries = 48;  // queries whose scores are held at a time

// Memory of one thread, aligned to cache lines, zeroed once: what is padding stays zero.
struct Arena {
  char* memory = nullptr;
  size_t used = 0, size = 0;
  explicit Arena(size_t bytes) : size(bytes) {
    memory = static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
    if (memory != nullptr) std::memset(memory, 0, bytes);
  }
  ~Arena() { std::free(memory); }
  template <class T>
  T* take(size_t count) {
    T* taken = reinterpret_cast<T*>(memory + used);
    used += (count * sizeof(T) + 63) / 64 * 64;
    return taken;
  }
};

struct Shape {
  int num_rows, length, heads, head_size;
  long token_stride, head_stride;  // of query, key, value and their gradients, in numbers
  const int32_t* lengths;          // real tokens of each row; null: all
  int columns() const { return (length + kPanel - 1) / kPanel * kPanel; }
};

template <class T>
inline uint32_t unit_of(const T* row, int unit) {
  uint32_t bits;
  if constexpr (Units<T>::kNumbers == 2) {
    std::memcpy(&bits, row + 2 * unit, 4);
  } else {
    float value = load_one(row + unit);
    std::memcpy(&bits, &value, 4);
  }
  return bits;
}

// The transposed matrix: its units run along the head; columns are tokens.
template <class T>
void pack_transposed(const T* tokens, long stride, int num_tokens, int head_size, uint32_t* packed) {
  const int depth = head_size / Units<T>::kNumbers;
  for (int token = 0; token < num_tokens; ++token) {
    uint32_t* column = packed + long(token / kPanel) * depth * kPanel + token % kPanel;
    for (int unit = 0; unit < depth; ++unit) column[unit * kPanel] = unit_of(tokens + token * stride, unit);
  }
}

// The matrix as it is: its units run along the tokens, of which `depth` units are written, zeros behind the last token; columns are the head's.
template <class T>
void pack(const T* tokens, long stride, int num_tokens, int depth, int head_size, uint32_t* packed) {
  constexpr int kNumbers = Units<T>::kNumbers;
  for (int unit = 0; unit < depth; ++unit) {
    for (int column = 0; column < head_size; column += kLanes) {
      int first = unit * kNumbers;
      Floats one = first < num_tokens ? load(tokens + first * stride + column) : Floats{};
      uint32_t* units = packed + long(column / kPanel) * depth * kPanel + unit * kPanel + column % kPanel;
      if constexpr (kNumbers == 2) {
#ifdef __AVX512BF16__
        Floats two = first + 1 < num_tokens ? load(tokens + (first + 1) * stride + column) : Floats{};
        store_unit_rows(units, one, two);
#endif
      } else {
        store(reinterpret_cast<float*>(units), one);
      }
    }
  }
}

// The rows of a left-hand matrix, token after token.
template <class T>
void copy_rows(const T* tokens, long stride, int num_tokens, int head_size, typename Units<T>::Row* rows) {
  for (int token = 0; token < num_tokens; ++token)
    for (int column = 0; column < head_size; column += kLanes) store(rows + token * head_size + column, load(tokens + token * stride + column));
}

// Scores of some queries become probabilities; `logsumexp`: of the scaled scores. Columns from `length` on are zero.
inline void softmax(float* scores, int length, int columns, float scale, float& logsumexp) {
  for (int column = length; column < columns; ++column) scores[column] = -INFINITY;
  Floats greatest = all(-INFINITY);
  for (int column = 0; column < columns; column += kLanes) {
    Floats score = load(scores + column);
    greatest = score > greatest ? score : greatest;
  }
  float maximum = greatest[0];
  for (int lane = 1; lane < kLanes; ++lane) maximum = std::max(maximum, greatest[lane]);
  Floats total{};
  for (int column = 0; column < columns; column += kLanes) {
    Floats value = exp_negative((load(scores + column) - maximum) * scale);
    total += value;
    store(scores + column, value);
  }
  float denominator = sum(total);
  for (int column = 0; column < columns; column += kLanes) store(scores + column, load(scores + column) / denominator);
  logsumexp = maximum * scale + std::log(denominator);
}

inline int real_tokens(const Shape& shape, int row) {
  // A row without a real token attends to its padding: finite, and nobody asks for it.
  int length = shape.lengths == nullptr ? shape.length : shape.lengths[row];
  return length > 0 ? length : shape.length;
}

template <class T>
bool forward(const T* query, const T* key, const T* value, const Shape& shape, const Dropout& dropout, T* out, float* logsumexp,
             int num_threads) {
  using Row = typename Units<T>::Row;
  constexpr int kNumbers = Units<T>::kNumbers;
  const int columns = shape.columns(), head_size = shape.head_size, row_units = columns / kNumbers;
  const int panels = (head_size + kPanel - 1) / kPanel * kPanel;
  const float scale = 1.0f / std::sqrt(float(head_size));
  const long out_stride = long(shape.heads) * head_size;
  bool has_memory = true;
#pragma omp parallel num_threads(num_threads)
  {
    Arena arena(4ul * columns * head_size + 4ul * columns * panels + kQueries * (8ul * columns + 8ul * head_size) + 8ul * columns + 4096);
    if (arena.memory == nullptr) {
#pragma omp atomic write
      has_memory = false;
    } else {
      uint32_t* keys = arena.take<uint32_t>(long(columns) * head_size / kNumbers);
      uint32_t* values = arena.take<uint32_t>(long(row_units) * panels);
      Row* queries = arena.take<Row>(kQueries * head_size);
      float* scores = arena.take<float>(long(kQueries) * columns);
      Row* weights = arena.take<Row>(long(kQueries) * columns);
      float* context = arena.take<float>(kQueries * head_size);
      float* factors = arena.take<float>(columns + kDraws);
#pragma omp for schedule(dynamic)
      for (int matrix = 0; matrix < shape.num_rows * shape.heads; ++matrix) {
        const int row = matrix / shape.heads, head = matrix % shape.heads, real = real_tokens(shape, row);
        const int used = (real + kPanel - 1) / kPanel * kPanel;
        const long place = long(row) * shape.length * shape.token_stride + head * shape.head_stride;
        pack_transposed(key + place, shape.token_stride, real, head_size, keys);
        pack(value + place, shape.token_stride, real, used / kNumbers, head_size, values);
        for (int first = 0; first < shape.length; first += kQueries) {
          const int count = std::min(kQueries, shape.length - first);
          copy_rows(query + place + first * shape.token_stride, shape.token_stride, count, head_size, queries);
          product<T>(reinterpret_cast<uint32_t*>(queries), head_size / kNumbers, 1, count, keys, used, head_size / kNumbers, scores, columns, false);
          for (int i = 0; i < count; ++i) {
            float* own = scores + long(i) * columns;
            softmax(own, real, used, scale, logsumexp[long(matrix) * shape.length + first + i]);
            if (dropout.threshold > 0) dropout.draw(first + i, matrix, used, factors);
            for (int column = 0; column < used; column += kLanes) {
              Floats weight = load(own + column);
              if (dropout.threshold > 0) weight *= load(factors + column);
              store(weights + long(i) * columns + column, weight);
            }
          }
          product<T>(reinterpret_cast<uint32_t*>(weights), row_units, 1, count, values, head_size, used / kNumbers, context, head_size, false);
          for (int i = 0; i < count; ++i) {
            T* target = out + (long(row) * shape.length + first + i) * out_stride + head * head_size;
            for (int column = 0; column < head_size; column += kLanes) store(target + column, load(context + i * head_size + column));
          }
        }
      }
    }
  }
  return has_memory;
}

// Rows `i` and `i` + 1 of a matrix as its transposed rows want them; with one number a unit, row after row.
template <class T>
inline void store_transposed(uint32_t* units, long unit_row, int i, int column, Floats one, Floats two) {
  if constexpr (Units<T>::kNumbers == 2) {
#ifdef __AVX512BF16__
    store_unit_rows(units + (i / 2) * unit_row + column, one, two);
#endif
  } else {
    store(reinterpret_cast<float*>(units) + i * unit_row + column, one);
    store(reinterpret_cast<float*>(units) + (i + 1) * unit_row + column, two);
  }
}

template <class T>
bool backward(const T* query, const T* key, const T* value, const T* out, const float* logsumexp, const T* upstream, const Shape& shape,
              const Dropout& dropout, T* query_gradient, T* key_gradient, T* value_gradient, int num_threads) {
  using Row = typename Units<T>::Row;
  constexpr int kNumbers = Units<T>::kNumbers;
  const int columns = shape.columns(), head_size = shape.head_size, row_units = columns / kNumbers, depth = head_size / kNumbers;
  const int panels = (head_size + kPanel - 1) / kPanel * kPanel;
  const long unit_row = columns + kLanes;  // not a power of two: neighbours do not fall onto the same lines of the cache
  const float scale = 1.0f / std::sqrt(float(head_size));
  const long out_stride = long(shape.heads) * head_size;
  bool has_memory = true;
#pragma omp parallel num_threads(num_threads)
  {
    Arena arena(8ul * columns * head_size + 4ul * columns * panels + 8ul * columns * head_size + 16ul * kQueries * panels +
                kQueries * (12ul * columns + 8ul * unit_row) + 8ul * kQueries * head_size + 16ul * columns + 16384);
    if (arena.memory == nullptr) {
#pragma omp atomic write
      has_memory = false;
    } else {
      uint32_t* keys_transposed = arena.take<uint32_t>(long(columns) * depth);
      uint32_t* values_transposed = arena.take<uint32_t>(long(columns) * depth);
      uint32_t* keys = arena.take<uint32_t>(long(row_units) * panels);
      float* key_sums = arena.take<float>(long(columns) * head_size);
      float* value_sums = arena.take<float>(long(columns) * head_size);
      uint32_t* queries_packed = arena.take<uint32_t>(kQueries * panels);
      uint32_t* upstream_packed = arena.take<uint32_t>(kQueries * panels);
      Row* queries = arena.take<Row>(kQueries * head_size);
      Row* upstream_rows = arena.take<Row>(kQueries * head_size);
      float* query_sums = arena.take<float>(kQueries * head_size);
      float* scores = arena.take<float>(long(kQueries) * columns);
      float* weight_gradients = arena.take<float>(long(kQueries) * columns);
      Row* score_rows = arena.take<Row>(long(kQueries) * columns);
      uint32_t* weights_transposed = arena.take<uint32_t>(kQueries * unit_row);
      uint32_t* scores_transposed = arena.take<uint32_t>(kQueries * unit_row);
      float* factors = arena.take<float>(2 * (columns + kDraws));
#pragma omp for schedule(dynamic)
      for (int matrix = 0; matrix < shape.num_rows * shape.heads; ++matrix) {
        const int row = matrix / shape.heads, head = matrix % shape.heads, real = real_tokens(shape, row);
        const int used = (real + kPanel - 1) / kPanel * kPanel;
        const long place = long(row) * shape.length * shape.token_stride + head * shape.head_stride;
        pack_transposed(key + place, shape.token_stride, real, head_size, keys_transposed);
        pack_transposed(value + place, shape.token_stride, real, head_size, values_transposed);
        pack(key + place, shape.token_stride, real, used / kNumbers, head_size, keys);
        std::fill(key_sums, key_sums + long(used) * head_size, 0.0f);
        std::fill(value_sums, value_sums + long(used) * head_size, 0.0f);
        for (int first = 0; first < shape.length; first += kQueries) {
          const int count = std::min(kQueries, shape.length - first), even = (count + 1) / 2 * 2;
          const long token = long(row) * shape.length + first;
          const T* own_queries = query + place + first * shape.token_stride;
          const T* own_upstream = upstream + token * out_stride + head * head_size;
          const T* own_out = out + token * out_stride + head * head_size;
          copy_rows(own_queries, shape.token_stride, count, head_size, queries);
          copy_rows(own_upstream, out_stride, count, head_size, upstream_rows);
          pack(own_queries, shape.token_stride, count, even / kNumbers, head_size, queries_packed);
          pack(own_upstream, out_stride, count, even / kNumbers, head_size, upstream_packed);
          product<T>(reinterpret_cast<uint32_t*>(queries), depth, 1, count, keys_transposed, used, depth, scores, columns, false);
          product<T>(reinterpret_cast<uint32_t*>(upstream_rows), depth, 1, count, values_transposed, used, depth, weight_gradients, columns, false);
          for (int i = 0; i < even; i += 2) {
            float shift[2], delta[2], share[2];
            for (int k = 0; k < 2; ++k) {
              const bool is_there = i + k < count;
              Floats products{};
              for (int column = 0; is_there && column < head_size; column += kLanes)
                products += load(own_upstream + (i + k) * out_stride + column) * load(own_out + (i + k) * out_stride + column);
              delta[k] = sum(products);
              shift[k] = is_there ? logsumexp[long(matrix) * shape.length + first + i + k] : 0.0f;
              share[k] = is_there ? 1.0f : 0.0f;
              if (dropout.threshold > 0) dropout.draw(first + i + k, matrix, used, factors + k * (columns + kDraws));
            }
            for (int column = 0; column < used; column += kLanes) {
              Floats weight[2], gradient[2];
              for (int k = 0; k < 2; ++k) {
                const long at = long(std::min(i + k, count - 1)) * columns + column;
                Floats probability = load(scores + at) * scale - shift[k];
                probability = exp_negative(probability < 0.0f ? probability : Floats{}) * share[k];
                if (column + kLanes > real) {
                  for (int lane = 0; lane < kLanes; ++lane) probability[lane] = column + lane < real ? probability[lane] : 0.0f;
                }
                Floats factor = dropout.threshold > 0 ? load(factors + k * (columns + kDraws) + column) : all(1.0f);
                weight[k] = probability * factor;
                gradient[k] = (weight[k] * load(weight_gradients + at) - probability * delta[k]) * scale;
                if (i + k < count) store(score_rows + long(i + k) * columns + column, gradient[k]);
              }
              store_transposed<T>(weights_transposed, unit_row, i, column, weight[0], weight[1]);
              store_transposed<T>(scores_transposed, unit_row, i, column, gradient[0], gradient[1]);
            }
          }
          product<T>(weights_transposed, 1, unit_row, used, upstream_packed, head_size, even / kNumbers, value_sums, head_size, true);
          product<T>(scores_transposed, 1, unit_row, used, queries_packed, head_size, even / kNumbers, key_sums, head_size, true);
          product<T>(reinterpret_cast<uint32_t*>(score_rows), row_units, 1, count, keys, head_size, used / kNumbers, query_sums, head_size, false);
          for (int i = 0; i < count; ++i)
            for (int column = 0; column < head_size; column += kLanes)
              store(query_gradient + place + (first + i) * shape.token_stride + column, load(query_sums + i * head_size + column));
        }
        for (int position = 0; position < shape.length; ++position) {
          const bool is_real = position < real;
          for (int column = 0; column < head_size; column += kLanes) {
            const long at = place + position * shape.token_stride + column;
            store(key_gradient + at, is_real ? load(key_sums + long(position) * head_size + column) : Floats{});
            store(value_gradient + at, is_real ? load(value_sums + long(position) * head_size + column) : Floats{});
          }
        }
      }
    }
  }
  return has_memory;
}

}  // namespace

extern "C" {

int attention_forward(int is_bf16, const void* query, const void* key, const void* value, int num_rows, int length, int heads,
                      int head_size, long token_stride, long head_stride, const int32_t* lengths, double dropout, uint64_t seed, void* out,
                      float* logsumexp, int num_threads) {
  const Shape shape{num_rows, length, heads, head_size, token_stride, head_stride, lengths};
  const Dropout drawn(seed, dropout);
  if (is_bf16)
    return !forward((const bfloat16*)query, (const bfloat16*)key, (const bfloat16*)value, shape, drawn, (bfloat16*)out, logsumexp, num_threads);
  return !forward((const float*)query, (const float*)key, (const float*)value, shape, drawn, (float*)out, logsumexp, num_threads);
}

int attention_backward(int is_bf16, const void* query, const void* key, const void* value, const void* out, const float* logsumexp,
                       const void* upstream, int num_rows, int length, int heads, int head_size, long token_stride, long head_stride,
                       const int32_t* lengths, double dropout, uint64_t seed, void* query_gradient, void* key_gradient,
                       void* value_gradient, int num_threads) {
  const Shape shape{num_rows, length, heads, head_size, token_stride, head_stride, lengths};
  const Dropout drawn(seed, dropout);
  if (is_bf16)
    return !backward((const bfloat16*)query, (const bfloat16*)key, (const bfloat16*)value, (const bfloat16*)out, logsumexp,
                     (const bfloat16*)upstream, shape, drawn, (bfloat16*)query_gradient, (bfloat16*)key_gradient,
                     (bfloat16*)value_gradient, num_threads);
  return !backward((const float*)query, (const float*)key, (const float*)value, (const float*)out, logsumexp, (const float*)upstream, shape,
                   drawn, (float*)query_gradient, (float*)key_gradient, (float*)value_gradient, num_threads);
}

// What a dropout multiplies `columns` (a multiple of kDraws) numbers of each of num_rows rows of a matrix by.
void dropout_factors(double dropout, uint64_t seed, uint32_t matrix, int num_rows, int columns, float* factors) {
  const Dropout drawn(seed, dropout);
  for (int row = 0; row < num_rows; ++row) drawn.draw(row, matrix, columns, factors + long(row) * columns);
}

int draws_at_a_time() { return kDraws; }
}
