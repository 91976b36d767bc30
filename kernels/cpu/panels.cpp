// Reading tensors of any strides into the panels that the products take.
#pragma once
#include <type_traits>

#include "matmul.cpp"
#include "threads.cpp"

constexpr float kLog2e = 1.44269504088896f, kLn2 = 0.69314718055994f;

// A [batch, tokens, heads, dim] tensor; strides in elements, dim contiguous.
struct Strided {
  const void* data;
  int64_t batch, token, head;
};

enum Dtype : int32_t { kFloat = 0, kBfloat16 = 1, kHalf = 2 };

template <class T>
static inline const T* token_of(const Strided& x, int64_t b, int64_t s, int64_t h) {
  return (const T*)x.data + b * x.batch + s * x.token + h * x.head;
}

// How many keys of batch item b take part.
static inline int64_t keys_of(const int64_t* kv_lens, int64_t kv_len, int64_t b) {
  return kv_lens && kv_lens[b] < kv_len ? kv_lens[b] : kv_len;
}

// Whether pairs of numbers are multiplied without widening them first.
template <class T>
static inline bool pairs(int64_t dim) {
#if defined(__AVX512BF16__)
  return std::is_same<T, Bfloat16>::value && dim % 2 == 0;
#else
  return false;
#endif
}

// The memory of one thread, in floats; D is the head dimension.
struct Scratch {
  float *queries, *scores, *keys, *values, *out;  // D x 64, 64 x 64, 64 x D, 64 x D, D x 64
  float *top, *total, *decay;                     // per query
  void* memory;

  explicit Scratch(int64_t dim) {
    int64_t panel = dim * kQueryTile;
    memory = aligned_alloc(64, sizeof(float) * (4 * panel + 64 * 64 + 3 * kQueryTile));
    queries = (float*)memory;
    keys = queries + panel;
    values = keys + panel;
    out = values + panel;
    scores = out + panel;
    top = scores + 64 * 64;
    total = top + kQueryTile;
    decay = total + kQueryTile;
  }
  ~Scratch() { free(memory); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};
static_assert(kQueryTile == 64 && kKeyTile == 64, "the sizes above");

// Asks for tokens that are read or written soon: they may lie pages apart, where the hardware does
// not look ahead.
template <class T>
static void prefetch(const Strided& x, int64_t b, int64_t first, int64_t h, int64_t count,
                     int64_t dim) {
  for (int64_t i = 0; i < count; i++) {
    const char* row = (const char*)token_of<T>(x, b, first + i, h);
    for (int64_t byte = 0; byte < dim * (int64_t)sizeof(T); byte += 64)
      __builtin_prefetch(row + byte, 0, 2);
  }
}

static inline int64_t vectors_for(int64_t queries) { return (queries + kLanes - 1) / kLanes; }

// queries[d][q] (or bf16 pairs [d / 2][q]); the lanes behind the last query are zero.
template <class T>
static void pack_queries(const Strided& q, int64_t b, int64_t first, int64_t h, int64_t count,
                         int64_t dim, float* panel) {
  memset(panel, 0, sizeof(float) * dim * kQueryTile);
  bool paired = pairs<T>(dim);
  for (int64_t i = 0; i < count; i++) {
    const T* row = token_of<T>(q, b, first + i, h);
    if (paired)
      for (int64_t d = 0; d < dim / 2; d++) memcpy(panel + d * kQueryTile + i, row + 2 * d, 4);
    else
      for (int64_t d = 0; d < dim; d++) panel[d * kQueryTile + i] = widen(row[d]);
  }
}

template <class T>
static void widen_rows(const T* from, int64_t token, int64_t count, int64_t dim, float* to) {
  for (int64_t i = 0; i < count; i++)
    for (int64_t d = 0; d < dim; d++) to[i * dim + d] = widen(from[i * token + d]);
}

// scores[key][query] = k . q for `count` keys, unscaled.
template <class T>
static void score(const Strided& k, int64_t b, int64_t first, int64_t h, int64_t count,
                  int64_t dim, int64_t vectors, Scratch& own) {
  const T* rows = token_of<T>(k, b, first, h);
#if defined(__AVX512BF16__)
  if (pairs<T>(dim)) {
    multiply<PairDot, false>(rows, k.token * 2, 4, own.queries, own.scores, count, vectors,
                             dim / 2);
    return;
  }
#endif
  const void* at = rows;
  int64_t stride = k.token;
  if (!std::is_same<T, Float>::value) {
    widen_rows(rows, k.token, count, dim, own.keys);
    at = own.keys;
    stride = dim;
  }
  multiply<MultiplyAdd, false>(at, stride * 4, 4, own.queries, own.scores, count, vectors, dim);
}
