/* Vectors of `real` and the functions an equation may use on them.
 *
 * Expects REAL_BITS (32 or 64). LANES units are computed at once; GCC's vector extensions
 * carry AVX-512, AVX2, SSE2 and NEON from one source.
 *
 * Accuracy in float32, measured against float64 over the whole range (see tests): tanh within
 * 3 ulp, sigmoid within 3 from x = -10 on and within 6 below, where it is less than 5e-5. NaN in
 * gives NaN out: the clamps below let NaN pass.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define REGISTERS 32
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define REGISTERS 16
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define REGISTERS 32
#else
#define VECTOR_BYTES 16
#define REGISTERS 16
#endif

#if REAL_BITS == 32
typedef float real;
typedef int32_t whole;
#else
typedef double real;
typedef int64_t whole;
#endif
#define LANES ((int)(VECTOR_BYTES / sizeof(real)))

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef whole ivec __attribute__((vector_size(VECTOR_BYTES)));
typedef real loose_vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real))));
#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const real *p) { return *(const loose_vec *)p; }
INLINE void store(real *p, vec v) { *(loose_vec *)p = v; }
INLINE vec splat(real x) { return x - (vec){0}; }
INLINE vec bits_to_vec(ivec b) { vec v; memcpy(&v, &b, sizeof v); return v; }
INLINE ivec vec_to_bits(vec v) { ivec b; memcpy(&b, &v, sizeof b); return b; }
/* where the mask lane is all ones: a, else b (C has no ?: on vectors) */
INLINE vec blend(ivec mask, vec a, vec b) {
  return bits_to_vec((vec_to_bits(a) & mask) | (vec_to_bits(b) & ~mask));
}

/* The smaller and larger of a bound and x, where a NaN in x is kept. x86 returns the second
 * operand if either is NaN; asm rather than intrinsics because immintrin.h alone costs a
 * quarter of the compile time. */
#if defined(__x86_64__) && defined(__AVX__)
#if REAL_BITS == 32
#define X86_BOUND(name) __asm__("v" name "ps %2, %1, %0" : "=v"(r) : "v"(bound), "v"(x))
#else
#define X86_BOUND(name) __asm__("v" name "pd %2, %1, %0" : "=v"(r) : "v"(bound), "v"(x))
#endif
INLINE vec at_most(vec x, vec bound) { vec r; X86_BOUND("min"); return r; }
INLINE vec at_least(vec x, vec bound) { vec r; X86_BOUND("max"); return r; }
#else
INLINE vec at_most(vec x, vec bound) { return blend(x > bound, bound, x); }
INLINE vec at_least(vec x, vec bound) { return blend(x < bound, bound, x); }
#endif

/* 1 / x; on AVX-512 in float32 by a 14-bit estimate and one Newton step (error 2^-28 before
 * rounding), a third of the cost of a division. */
INLINE vec reciprocal(vec x) {
#if defined(__AVX512F__) && REAL_BITS == 32
  vec r;
  __asm__("vrcp14ps %1, %0" : "=v"(r) : "v"(x));
  return r + r * (1 - x * r);
#else
  return 1 / x;
#endif
}

/* exp(x) - 1 and exp(x) share everything but the last addition.
 * x = n ln 2 + r, |r| <= ln 2 / 2; e^r - 1 by a minimax polynomial without constant term, so
 * that small x keeps its relative accuracy (relative error 1.3e-8 in float32, 2.6e-19 in
 * float64, before rounding). n comes from adding and removing `magic`, which rounds; flags
 * that let the compiler simplify that sum away must not be used. magic is 1.5·2^m, whose lowest
 * bits are zero, and the exponent of 1: so the sum's lowest bits are the exponent of 2^n. */
INLINE void exp_parts(vec x, vec *power, vec *fraction) {
#if REAL_BITS == 32
  const real magic = 12582912.0f + 127, log2e = 1.44269504f;
  const real ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  const int mantissa = 23;
#else
  const real magic = 6755399441055744.0 + 1023, log2e = 1.4426950408889634;
  const real ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  const int mantissa = 52;
#endif
  vec shifted = x * log2e + magic;
  vec n = shifted - magic;
  vec r = x - n * ln2_high;
  r = r - n * ln2_low;
#if REAL_BITS == 32
  vec q = r * 1.3882522057967986529e-3f + 8.3665206103763395888e-3f;
  q = q * r + 4.1667199842251658492e-2f;
  q = q * r + 1.6666543620706532394e-1f;
  q = q * r + 4.9999998154177029596e-1f;
#else
  vec q = r * 2.0875332693885994442e-9 + 2.5108979212168259174e-8;
  q = q * r + 2.7557402622051560602e-7;
  q = q * r + 2.7557244373156513398e-6;
  q = q * r + 2.4801587172582449914e-5;
  q = q * r + 1.9841269885967047012e-4;
  q = q * r + 1.3888888888962333667e-3;
  q = q * r + 8.3333333333216910616e-3;
  q = q * r + 4.1666666666666508907e-2;
  q = q * r + 1.6666666666666676508e-1;
  q = q * r + 5.0000000000000000085e-1;
#endif
  *power = bits_to_vec(vec_to_bits(shifted) << mantissa); /* 2^n: see magic */
  *fraction = r + r * r * q;                             /* e^r - 1 */
}

#if REAL_BITS == 32
#define EXP_LIMIT 87.0f
#define TANH_LIMIT 20.0f
#else
#define EXP_LIMIT 708.0
#define TANH_LIMIT 40.0
#endif

INLINE vec v_exp_clamped(vec x) {
  vec power, fraction;
  exp_parts(x, &power, &fraction);
  return power + power * fraction;
}

#if REAL_BITS == 32 && defined(__x86_64__) && defined(__AVX2__)
/* 1 + e^-x for a sigmoid, which unlike tanh needs no accuracy of e^x - 1 near 0. The powers
 * 2^(j/LANES) lie in one register, -x = (n/LANES) ln 2 + r, and r is so small that three terms do
 * (relative error 3e-8); that saves half of the products above. n << … puts n's multiple of LANES
 * into the exponent and its rest j too far below, which the entries of the table are short of. */
#ifdef __AVX512F__
static const int32_t ROOTS_OF_2[] = {
    0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
    0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
#else
static const int32_t ROOTS_OF_2[] = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                                     0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};
#endif
INLINE vec one_plus_exp_minus(vec x) {
  const real magic = 12582912.0f, ln2 = 0.693147181f;
  const vec shifted = magic - x * (LANES * 1.44269504f);
  const vec n = shifted - magic, r = -x - n * (ln2 / LANES);
  vec root;
  __asm__("vpermps %2, %1, %0"
          : "=v"(root)
          : "v"(vec_to_bits(shifted)), "v"(load((const real *)ROOTS_OF_2)));
  const int into_exponent = LANES == 16 ? 19 : 20;
  const vec power = bits_to_vec(vec_to_bits(root) + (vec_to_bits(shifted) << into_exponent));
  const vec fraction = r + r * r * (r * 1.6668035e-1f + 5.0006517e-1f);
  return power * fraction + (power + 1);
}
#else
INLINE vec one_plus_exp_minus(vec x) { return 1 + v_exp_clamped(-x); }
#endif

INLINE vec v_sigmoid(vec x) {
  x = at_most(at_least(x, splat(-EXP_LIMIT)), splat(EXP_LIMIT));
  return reciprocal(one_plus_exp_minus(x));
}

/* tanh x = m / (m + 2), m = e^{2x} - 1 */
INLINE vec v_tanh(vec x) {
  vec power, fraction;
  x = at_most(at_least(x, splat(-TANH_LIMIT)), splat(TANH_LIMIT));
  exp_parts(x + x, &power, &fraction);
  vec m = power * fraction + (power - 1);
  return m * reciprocal(m + 2);
}

INLINE vec v_relu(vec x) { return blend(x < 0, splat(0), x); }
INLINE vec v_positive(vec x) { return blend(x > 0, splat(1), splat(0)); }
INLINE vec v_hard_tanh(vec x) { return at_most(at_least(x, splat(-1)), splat(1)); }
INLINE vec v_inside(vec x) { return blend((x > -1) & (x < 1), splat(1), splat(0)); }

/* Functions off the usual path go through the C library, lane by lane. */
#if REAL_BITS == 32
#define BY_LANE(name, f, f64) \
  INLINE vec name(vec x) { for (int i = 0; i < LANES; i++) x[i] = f(x[i]); return x; }
#else
#define BY_LANE(name, f, f64) \
  INLINE vec name(vec x) { for (int i = 0; i < LANES; i++) x[i] = f64(x[i]); return x; }
#endif
BY_LANE(v_exp, expf, exp)
BY_LANE(v_log, logf, log)
BY_LANE(v_sqrt, sqrtf, sqrt)
BY_LANE(log1p_lanes, log1pf, log1p)
/* softplus x = max(x, 0) + log(1 + e^-|x|) */
INLINE vec v_softplus(vec x) {
  vec small = blend(x < 0, x, -x);
  return v_relu(x) + log1p_lanes(v_exp(small));
}
