// What Python calls; the only file that is handed to the compiler. Returns 0, or 1 without memory.
#include "attention.cpp"
#include "mass.cpp"

extern "C" {

int sparsediff_attention(const AttentionCall* call) {
  if (call->dtype == kFloat) return attend<Float>(*call);
  return call->dtype == kHalf ? attend<Half>(*call) : attend<Bfloat16>(*call);
}

int sparsediff_mass(const MassCall* call) {
  if (call->dtype == kFloat) return measure<Float>(*call);
  return call->dtype == kHalf ? measure<Half>(*call) : measure<Bfloat16>(*call);
}

// Floats per vector, and 100 more when bf16 pairs are multiplied directly.
int sparsediff_variant() {
#if defined(__AVX512BF16__)
  return kLanes + 100;
#else
  return kLanes;
#endif
}
}
