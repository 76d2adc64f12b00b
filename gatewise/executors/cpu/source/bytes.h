/* multiply() for weights held as bytes (weights.h, INT8): whole sums first, scaled at the end. */

INLINE ivec load_whole(const weight *p) {
  ivec v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE real operand_scale(const operand *row) {
  real scale = 1; /* a widened row is its own */
#if NATIVE
  memcpy(&scale, row, sizeof scale);
#endif
  return scale;
}

#if NATIVE
/* Sums of products with the high and the low bytes of a row, where the high ones count from 128. */
typedef struct { ivec high, low; } partial;
INLINE partial begin_partial(ivec sum_of_weights) { return (partial){sum_of_weights * -128, {0}}; }
INLINE void add_bytes(partial *sum, const operand *a, ivec w) {
  const ivec high = (ivec){0} + (whole)a->high, low = (ivec){0} + (whole)a->low;
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum->high) : "v"(high), "v"(w));
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum->low) : "v"(low), "v"(w));
}
INLINE vec value_of(partial sum) {
  return __builtin_convertvector(sum.high, vec) * 256 + __builtin_convertvector(sum.low, vec);
}
#else
typedef vec partial;
INLINE partial begin_partial(ivec sum_of_weights) { return splat(0); }
INLINE void add_bytes(partial *sum, const operand *a, ivec w) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
    *sum += a->number[i] * __builtin_convertvector((w << (24 - 8 * i)) >> 24, vec);
}
INLINE vec value_of(partial sum) { return sum; }
#endif

INLINE void multiply_bytes(vec *acc, const int mr, const int nu, const int ng, const int stride,
                           const int *gates, const operand *const *rows, const weight *panel,
                           long panel_step, long count) {
  partial sums[TILE];
#pragma GCC unroll 24
  for (int u = 0; u < nu; u++)
#pragma GCC unroll 24
    for (int g = 0; g < ng; g++) {
      const weight *head = panel + u * panel_step + g * LANES;
#pragma GCC unroll 24
      for (int r = 0; r < mr; r++)
        sums[(r * nu + u) * ng + g] = begin_partial(load_whole(head + ng * LANES));
    }
  for (long k = 0; k < count; k++) {
    const weight *from = panel + (HEAD + k) * ng * LANES;
#pragma GCC unroll 24
    for (int u = 0; u < nu; u++)
#pragma GCC unroll 24
      for (int g = 0; g < ng; g++) {
        const ivec w = load_whole(from + u * panel_step + g * LANES);
#pragma GCC unroll 24
        for (int r = 0; r < mr; r++)
          add_bytes(sums + (r * nu + u) * ng + g, rows[r] + HEAD + k, w);
      }
  }
#pragma GCC unroll 24
  for (int u = 0; u < nu; u++)
#pragma GCC unroll 24
    for (int g = 0; g < ng; g++) {
      const vec scale = bits_to_vec(load_whole(panel + u * panel_step + g * LANES));
#pragma GCC unroll 24
      for (int r = 0; r < mr; r++)
        acc[(r * nu + u) * stride + gates[g]] +=
            value_of(sums[(r * nu + u) * ng + g]) * (scale * operand_scale(rows[r]));
    }
}
