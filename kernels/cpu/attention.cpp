// Block-sparse attention: an online softmax over the listed key blocks of each query block.
#pragma once
#include "panels.cpp"

struct AttentionCall {
  Strided q, k, v, out;
  float* lse;              // [batch, heads, q_len] or null
  const int32_t* counts;   // [batch, heads, rows], strides below
  const int32_t* indices;  // [batch, heads, rows, longest]
  const int64_t* kv_lens;  // [batch] or null
  const float* pooled_bias;  // [batch, key blocks]: ln(tokens) / scale; null for no pooled blocks
  Strided pooled_k, pooled_v;  // [batch, key blocks, heads, dim], the mean of each block
  int64_t counts_batch, counts_head, counts_row;
  int64_t indices_batch, indices_head, indices_row, indices_entry;
  int64_t batch, heads, q_len, kv_len, dim, block_q, block_k;
  float scale;
  int32_t dtype, threads;
};

// The running maximum may lag behind by this much (in powers of two) before sums are rescaled: any
// reference is exact, a lagging one only leaves larger numbers, here up to 2^8.
constexpr float kLag = 8.f;

// Moves the references of the queries up to the new scores; true when earlier sums must shrink.
static bool raise_top(Scratch& own, int64_t count, int64_t vectors, float to_log2) {
  bool grew = false;
  for (int64_t j = 0; j < vectors * kLanes; j += kLanes) {
    Vec most = load(own.scores + j);
    for (int64_t i = 1; i < count; i++) most = larger(load(own.scores + i * kQueryTile + j), most);
    most *= splat(to_log2);
    Vec top = load(own.top + j);
    IntVec up = most > top + splat(kLag);
    if (!any(up)) {
      store(own.decay + j, splat(1.f));
      continue;
    }
    Vec risen = up ? most : top;
    Vec decay = exp2(top - risen);
    store(own.top + j, risen);
    store(own.decay + j, decay);
    store(own.total + j, load(own.total + j) * decay);
    grew = true;
  }
  return grew;
}

// scores -> exp(score - reference), summed per query.
static void weigh(Scratch& own, int64_t count, int64_t vectors, float to_log2) {
  for (int64_t j = 0; j < vectors * kLanes; j += kLanes) {
    Vec top = load(own.top + j), sum = {};
    for (int64_t i = 0; i < count; i++) {
      float* at = own.scores + i * kQueryTile + j;
      Vec weight = exp2(load(at) * splat(to_log2) - top);
      store(at, weight);
      sum += weight;
    }
    store(own.total + j, load(own.total + j) + sum);
  }
}

#if defined(__AVX512BF16__)
// Weights of neighbouring keys become bf16 pairs [key / 2][query], in place; half rounds up.
static void pair_weights(Scratch& own, int64_t count, int64_t vectors) {
  for (int64_t j = 0; j < vectors * kLanes; j += kLanes)
    for (int64_t i = 0; i < count; i += 2) {
      float* at = own.scores + i * kQueryTile + j;
      BitVec low = (BitVec)load(at) + 0x8000u;
      BitVec high = i + 1 < count ? (BitVec)load(at + kQueryTile) + 0x8000u : BitVec{};
      store(own.scores + i / 2 * kQueryTile + j, (Vec)(low >> 16 | (high & 0xffff0000u)));
    }
}

// values[key / 2][d] = the pair (v[key][d], v[key + 1][d]).
static void pair_values(const Bfloat16* v, int64_t token, int64_t count, int64_t dim, float* to) {
  uint32_t* pair = (uint32_t*)to;
  for (int64_t i = 0; i < count; i += 2, pair += dim) {
    const Bfloat16 *low = v + i * token, *high = low + token;
    if (i + 1 < count)
      for (int64_t d = 0; d < dim; d++) pair[d] = low[d].x | (uint32_t)high[d].x << 16;
    else
      for (int64_t d = 0; d < dim; d++) pair[d] = low[d].x;
  }
}
#endif

// out[d][query] += sum over `count` keys of weight * v[key][d].
template <class T>
static void accumulate(const Strided& v, int64_t dim, int64_t b, int64_t first, int64_t h,
                       int64_t count, int64_t vectors, Scratch& own) {
  const T* rows = token_of<T>(v, b, first, h);
#if defined(__AVX512BF16__)
  if (std::is_same<T, Bfloat16>::value && pairs<T>(dim)) {
    pair_weights(own, count, vectors);
    pair_values((const Bfloat16*)rows, v.token, count, dim, own.values);
    multiply<PairDot, true>(own.values, 4, dim * 4, own.scores, own.out, dim, vectors,
                            (count + 1) / 2);
    return;
  }
#endif
  const void* at = rows;
  int64_t stride = v.token;
  if (!std::is_same<T, Float>::value) {
    widen_rows(rows, v.token, count, dim, own.values);
    at = own.values;
    stride = dim;
  }
  multiply<MultiplyAdd, true>(at, 4, stride * 4, own.scores, own.out, dim, vectors, count);
}

struct Chunk {
  int64_t first, count;
};

// Walks over the keys that a query block lists, at most kKeyTile at a time; adjacent blocks are one
// run, so that small blocks still fill a tile.
class Chunks {
 public:
  Chunks(const AttentionCall& call, int64_t b, int64_t h, int64_t row)
      : list(call.indices + b * call.indices_batch + h * call.indices_head +
             row * call.indices_row),
        stride(call.indices_entry),
        left(call.counts[b * call.counts_batch + h * call.counts_head + row * call.counts_row]),
        block(call.block_k),
        keys(keys_of(call.kv_lens, call.kv_len, b)) {}

  // The next keys; none are left when the count is 0.
  Chunk next() {
    while (at >= end && left > 0) {
      int64_t first = *list, last = first;
      do {
        list += stride;
        left--;
        last++;
      } while (left > 0 && *list == last);
      at = first * block;
      end = last * block < keys ? last * block : keys;
    }
    if (at >= end) return {0, 0};
    Chunk found = {at, end - at < kKeyTile ? end - at : kKeyTile};
    at += found.count;
    return found;
  }

 private:
  const int32_t* list;
  int64_t stride, left, block, keys, at = 0, end = 0;
};

// The scores in `own` join the softmax: `count` tokens from `first` on, with the values in `v`.
template <class T>
static void join(const AttentionCall& call, const Strided& v, int64_t b, int64_t h,
                 const Chunk& chunk, int64_t vectors, Scratch& own) {
  float to_log2 = call.scale * kLog2e;
  if (raise_top(own, chunk.count, vectors, to_log2))
    for (int64_t d = 0; d < call.dim; d++)
      for (int64_t j = 0; j < vectors * kLanes; j += kLanes) {
        float* at = own.out + d * kQueryTile + j;
        store(at, load(at) * load(own.decay + j));
      }
  weigh(own, chunk.count, vectors, to_log2);
  accumulate<T>(v, call.dim, b, chunk.first, h, chunk.count, vectors, own);
}

// The key blocks that the row does not list, each as one token: its mean key and value, with the
// logarithm of its length added to the score. Listed ones get a weight of 2^-126.
template <class T>
static void attend_pooled(const AttentionCall& call, int64_t b, int64_t h, int64_t row,
                          int64_t vectors, Scratch& own) {
  int64_t blocks = (call.kv_len + call.block_k - 1) / call.block_k;
  const int32_t* list = call.indices + b * call.indices_batch + h * call.indices_head +
                        row * call.indices_row;
  int64_t left = call.counts[b * call.counts_batch + h * call.counts_head + row * call.counts_row];
  for (Chunk now = {0, 0}; now.first < blocks; now.first += now.count) {
    now.count = blocks - now.first < kKeyTile ? blocks - now.first : kKeyTile;
    score<T>(call.pooled_k, b, now.first, h, now.count, call.dim, vectors, own);
    for (int64_t i = 0; i < now.count; i++) {
      bool listed = left > 0 && *list == now.first + i;
      if (listed) {
        list += call.indices_entry;
        left--;
      }
      Vec bias = splat(listed ? 0.f : call.pooled_bias[b * blocks + now.first + i]);
      for (int64_t j = 0; j < vectors * kLanes; j += kLanes) {
        float* at = own.scores + i * kQueryTile + j;
        store(at, listed ? splat(-1e30f) : load(at) + bias);
      }
    }
    join<T>(call, call.pooled_v, b, h, now, vectors, own);
  }
}

template <class T>
static void write_out(const AttentionCall& call, int64_t b, int64_t h, int64_t first,
                      int64_t queries, Scratch& own) {
  for (int64_t i = 0; i < queries; i++) {
    float total = own.total[i];
    float share = total > 0 ? 1.f / total : total * 0.f;  // an empty row is 0, NaN stays NaN
    T* to = (T*)token_of<T>(call.out, b, first + i, h);
    for (int64_t d = 0; d < call.dim; d++) narrow(own.out[d * kQueryTile + i] * share, to + d);
    if (call.lse)
      call.lse[(b * call.heads + h) * call.q_len + first + i] =
          total == 0 ? -INFINITY : (own.top[i] + std::log2(total)) * kLn2;
  }
}

// The queries [first, first + queries) of query block `row`.
template <class T>
static void attend_tile(const AttentionCall& call, int64_t b, int64_t h, int64_t row, int64_t first,
                        int64_t queries, Scratch& own) {
  int64_t vectors = vectors_for(queries);
  prefetch<T>(call.q, b, first, h, queries, call.dim);
  prefetch<T>(call.out, b, first, h, queries, call.dim);
  pack_queries<T>(call.q, b, first, h, queries, call.dim, own.queries);
  memset(own.out, 0, sizeof(float) * call.dim * kQueryTile);
  for (int64_t i = 0; i < kQueryTile; i++) {
    own.top[i] = -INFINITY;
    own.total[i] = 0;
  }
  Chunks chunks(call, b, h, row);
  for (Chunk now = chunks.next(); now.count > 0;) {
    Chunk ahead = chunks.next();
    prefetch<T>(call.k, b, ahead.first, h, ahead.count, call.dim);
    prefetch<T>(call.v, b, ahead.first, h, ahead.count, call.dim);
    score<T>(call.k, b, now.first, h, now.count, call.dim, vectors, own);
    join<T>(call, call.v, b, h, now, vectors, own);
    now = ahead;
  }
  if (call.pooled_bias) attend_pooled<T>(call, b, h, row, vectors, own);
  write_out<T>(call, b, h, first, queries, own);
}

template <class T>
static int attend(const AttentionCall& call) {
  int64_t blocks = (call.q_len + call.block_q - 1) / call.block_q;
  int64_t tiles = (call.block_q + kQueryTile - 1) / kQueryTile;
  std::atomic<int> failed{0};
  share(call.batch * call.heads * blocks * tiles, call.threads, [&](auto take) {
    Scratch own(call.dim);
    if (!own.memory) {
      failed = 1;
      return;
    }
    for (int64_t task = take(); task >= 0; task = take()) {
      int64_t row = task / tiles % blocks, h = task / tiles / blocks % call.heads;
      int64_t first = row * call.block_q + task % tiles * kQueryTile;
      int64_t last = (row + 1) * call.block_q < call.q_len ? (row + 1) * call.block_q : call.q_len;
      int64_t queries = last - first < kQueryTile ? last - first : kQueryTile;
      if (queries > 0)
        attend_tile<T>(call, task / tiles / blocks / call.heads, h, row, first, queries, own);
    }
  });
  return failed;
}
