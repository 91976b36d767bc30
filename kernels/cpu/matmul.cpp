// Register-tiled products whose columns are query tokens, so that every vector lane is one query.
#pragma once
#include "vector.cpp"

constexpr int kQueryTile = 64;  // queries held at once: columns of every panel
constexpr int kKeyTile = 64;    // keys scored at once

#define SPARSEDIFF_UNROLL _Pragma("GCC unroll 8")

// Keeps a vector in a register: compilers would fold its load into every multiply-add that uses it,
// and the tile would then wait for loads.
#if defined(__AVX512F__)
#define SPARSEDIFF_IN_REGISTER(x) __asm__("" : "+v"(x))
#elif defined(__x86_64__)
#define SPARSEDIFF_IN_REGISTER(x) __asm__("" : "+x"(x))
#else
#define SPARSEDIFF_IN_REGISTER(x)
#endif

// One multiply-add of the tile: fp32 numbers.
struct MultiplyAdd {
  typedef Vec Operand;
  static constexpr int kDepth = 1;  // terms of the sum that one step takes
  static inline Operand broadcast(const char* p) {
    float x;
    memcpy(&x, p, 4);
    return splat(x);
  }
  static inline Operand fetch(const char* p) { return *(const Vec*)p; }
  static inline Vec step(Vec sum, Operand a, Operand b) { return sum + a * b; }
};

#if defined(__AVX512BF16__)
// One step of the tile: a pair of bf16 numbers per lane, summed in fp32.
struct PairDot {
  typedef __m512i Operand;
  static constexpr int kDepth = 2;
  static inline Operand broadcast(const char* p) {
    int32_t pair;
    memcpy(&pair, p, 4);
    return _mm512_set1_epi32(pair);
  }
  static inline Operand fetch(const char* p) { return _mm512_loadu_si512(p); }
  static inline Vec step(Vec sum, Operand a, Operand b) {
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};
#endif

// C[m][q] (+)= sum over k of A(m, k) * B[k][q]. A(m, k) lies at a + m * row + k * next (bytes); B and
// C are panels of kQueryTile 4-byte columns.
template <class Op, int Rows, int Cols, bool Add>
static inline __attribute__((always_inline)) void tile(const char* a, int64_t row, int64_t next,
                                                       const char* b, float* c, int64_t steps) {
  Vec sum[Rows][Cols];
  SPARSEDIFF_UNROLL for (int i = 0; i < Rows; i++) SPARSEDIFF_UNROLL for (int j = 0; j < Cols; j++)
      sum[i][j] = Add ? load(c + i * kQueryTile + j * kLanes) : Vec{};
  for (int64_t k = 0; k < steps; k++, a += next, b += kQueryTile * 4) {
    typename Op::Operand right[Cols];
    SPARSEDIFF_UNROLL for (int j = 0; j < Cols; j++) {
      right[j] = Op::fetch(b + j * kLanes * 4);
      SPARSEDIFF_IN_REGISTER(right[j]);
    }
    SPARSEDIFF_UNROLL for (int i = 0; i < Rows; i++) {
      typename Op::Operand left = Op::broadcast(a + i * row);
      SPARSEDIFF_UNROLL for (int j = 0; j < Cols; j++) sum[i][j] =
          Op::step(sum[i][j], left, right[j]);
    }
  }
  SPARSEDIFF_UNROLL for (int i = 0; i < Rows; i++) SPARSEDIFF_UNROLL for (int j = 0; j < Cols; j++)
      store(c + i * kQueryTile + j * kLanes, sum[i][j]);
}

template <class Op, int Cols, bool Add>
static inline void strip(const char* a, int64_t row, int64_t next, const char* b, float* c,
                         int64_t rows, int64_t steps) {
  int64_t m = 0;
  for (; m + kTileRows <= rows; m += kTileRows)
    tile<Op, kTileRows, Cols, Add>(a + m * row, row, next, b, c + m * kQueryTile, steps);
  for (; m < rows; m++)
    tile<Op, 1, Cols, Add>(a + m * row, row, next, b, c + m * kQueryTile, steps);
}

// The product over `vectors` columns of kLanes queries; `a` and its strides in bytes.
template <class Op, bool Add>
static inline void multiply(const void* a, int64_t row, int64_t next, const void* b, float* c,
                            int64_t rows, int64_t vectors, int64_t steps) {
  const char* left = (const char*)a;
  const char* right = (const char*)b;
  int64_t j = 0;
  for (; j + kTileCols <= vectors; j += kTileCols)
    strip<Op, kTileCols, Add>(left, row, next, right + j * kLanes * 4, c + j * kLanes, rows, steps);
  for (; j < vectors; j++)
    strip<Op, 1, Add>(left, row, next, right + j * kLanes * 4, c + j * kLanes, rows, steps);
}
