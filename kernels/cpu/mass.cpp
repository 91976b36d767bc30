// Block mass: how much softmax weight each block pair holds, from a known LSE.
#pragma once
#include "panels.cpp"

struct MassCall {
  Strided q, k;
  const float* lse;        // [batch, heads, q_len], strides below
  const int64_t* kv_lens;  // [batch] or null
  float* out;              // [batch, heads, rows, columns], contiguous, overwritten
  int64_t lse_batch, lse_head, lse_token;
  int64_t batch, heads, q_len, kv_len, dim, block_q, block_k;
  float scale;
  int32_t dtype, threads;
};

// Adds the mass of the queries [first, first + queries) to `out[columns]`.
template <class T>
static void mass_tile(const MassCall& call, int64_t b, int64_t h, int64_t first, int64_t queries,
                      float* out, Scratch& own) {
  const float to_log2 = call.scale * kLog2e;
  const Vec limit = splat(127.f);
  int64_t vectors = vectors_for(queries);
  pack_queries<T>(call.q, b, first, h, queries, call.dim, own.queries);
  const float* lse = call.lse + b * call.lse_batch + h * call.lse_head;
  for (int64_t i = 0; i < kQueryTile; i++) {
    float x = i < queries ? lse[(first + i) * call.lse_token] : -INFINITY;
    bool counts = x != -INFINITY;  // a row without keys, or a lane without a query, weighs nothing
    own.top[i] = counts ? x * kLog2e : 0;
    own.total[i] = counts;
  }
  int64_t keys = keys_of(call.kv_lens, call.kv_len, b);
  for (int64_t from = 0; from < keys; from += kKeyTile) {
    int64_t count = keys - from < kKeyTile ? keys - from : kKeyTile;
    score<T>(call.k, b, from, h, count, call.dim, vectors, own);
    for (int64_t key = from; key < from + count;) {
      int64_t column = key / call.block_k, end = (column + 1) * call.block_k;
      if (end > from + count) end = from + count;
      Vec mass = {};
      for (int64_t j = 0; j < vectors * kLanes; j += kLanes) {
        Vec top = load(own.top + j), some = {};
        for (int64_t i = key; i < end; i++) {
          Vec x = load(own.scores + (i - from) * kQueryTile + j) * splat(to_log2) - top;
          // An LSE of another step may be far too small; exp2 takes no more than 127.
          some += exp2(x > limit ? limit : x);
        }
        mass += some * load(own.total + j);
      }
      out[column] += sum(mass);
      key = end;
    }
  }
}

template <class T>
static int measure(const MassCall& call) {
  int64_t rows = (call.q_len + call.block_q - 1) / call.block_q;
  int64_t columns = (call.kv_len + call.block_k - 1) / call.block_k;
  std::atomic<int> failed{0};
  share(call.batch * call.heads * rows, call.threads, [&](auto take) {
    Scratch own(call.dim);
    if (!own.memory) {
      failed = 1;
      return;
    }
    for (int64_t task = take(); task >= 0; task = take()) {
      int64_t row = task % rows, h = task / rows % call.heads, b = task / rows / call.heads;
      int64_t last = (row + 1) * call.block_q < call.q_len ? (row + 1) * call.block_q : call.q_len;
      float* out = call.out + task * columns;
      memset(out, 0, sizeof(float) * columns);
      for (int64_t first = row * call.block_q; first < last; first += kQueryTile)
        mass_tile<T>(call, b, h, first, last - first < kQueryTile ? last - first : kQueryTile, out,
                     own);
    }
  });
  return failed;
}
