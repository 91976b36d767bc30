// Vectors of floats through the compiler's own extension: one source for AVX-512, AVX2 and the rest.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int kLanes = 16;    // floats in one vector register
constexpr int kTileCols = 4;  // vectors across one register tile
#elif defined(__AVX__)
constexpr int kLanes = 8;
constexpr int kTileCols = 2;
#else
constexpr int kLanes = 4;
constexpr int kTileCols = 4;
#endif
constexpr int kTileRows = 4;

typedef float Vec __attribute__((vector_size(kLanes * 4), aligned(4)));
typedef int32_t IntVec __attribute__((vector_size(kLanes * 4), aligned(4)));
typedef uint32_t BitVec __attribute__((vector_size(kLanes * 4), aligned(4)));

static inline Vec splat(float x) { return x - (Vec){}; }
static inline Vec load(const float* p) { return *(const Vec*)p; }
static inline void store(float* p, Vec x) { *(Vec*)p = x; }

// a > b ? a : b, so that a NaN in b stays; compilers spend two instructions on the plain form.
static inline Vec larger(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

static inline bool any(IntVec bits) {
  int32_t seen = 0;
  for (int i = 0; i < kLanes; i++) seen |= bits[i];
  return seen != 0;
}

static inline float sum(Vec x) {
  float total = 0;
  for (int i = 0; i < kLanes; i++) total += x[i];
  return total;
}

// 2^x for x <= 127, relative error below 2e-7; below -126 it stays at the smallest normal number.
// The polynomial is the degree 5 minimax of 2^f on [-1/2, 1/2] for the relative error.
static inline Vec exp2(Vec x) {
  x = larger(splat(-126.f), x);
  // Adding 1.5 * 2^23 leaves round(x) in the low bits of the sum.
  Vec shifted = x + splat(12582912.f);
  Vec f = x - (shifted - splat(12582912.f));
  Vec p = splat(1.327647199e-03f);
  p = p * f + splat(9.675541334e-03f);
  p = p * f + splat(5.550713273e-02f);
  p = p * f + splat(2.402211972e-01f);
  p = p * f + splat(6.931469671e-01f);
  p = p * f + splat(1.f);
  return (Vec)((IntVec)p + ((IntVec)shifted << 23));
}

static inline float from_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

static inline uint32_t to_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

struct Float {
  float x;
};
struct Bfloat16 {
  uint16_t x;
};
struct Half {
  uint16_t x;
};

static inline float widen(Float v) { return v.x; }
static inline float widen(Bfloat16 v) { return from_bits((uint32_t)v.x << 16); }
// Multiplying by 2^112 moves the exponent bias from 15 to 127 and normalises denormals; inputs are
// finite, so the largest exponent needs no care.
static inline float widen(Half v) {
  float magnitude = from_bits((uint32_t)(v.x & 0x7fff) << 13) * 0x1p112f;
  return from_bits(to_bits(magnitude) | (uint32_t)(v.x & 0x8000) << 16);
}

static inline void narrow(float f, Float* out) { out->x = f; }
// Both round to nearest even, as torch does.
static inline void narrow(float f, Bfloat16* out) {
  uint32_t u = to_bits(f);
  out->x = f != f ? 0x7fc0 : (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
static inline void narrow(float f, Half* out) {
  uint32_t u = to_bits(f), sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
  if (magnitude >= 0x47800000) {  // 65536 and above, infinity, NaN
    out->x = (uint16_t)(sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00));
  } else if (magnitude < 0x38800000) {  // below the smallest normal half: the addition rounds
    out->x = (uint16_t)(sign | (to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000));
  } else {
    uint32_t rounded = magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1);
    out->x = (uint16_t)(sign | rounded >> 13);
  }
}
