/* The sequences of LANES networks, and the random numbers they are drawn from.
 *
 * Included after vector.h and INPUTS, OUTPUTS. A task is a C file that includes nothing and
 * defines
 *   static long task_steps(const double *param): the most steps a sequence can have;
 *   static void task_draw(const double *param, const source *r, sequence *s): fills s.
 */
#include <math.h>

#define UNROLL _Pragma("GCC unroll 32")

typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
typedef uint64_t pairs __attribute__((vector_size(4 * LANES))); /* two lanes in each number */

/* Sequences are aligned at their ends: a shorter one starts later. */
typedef struct {
  long steps;              /* of the longest lane */
  long together;           /* from this step on every lane has begun */
  int32_t start[LANES];    /* first step of each lane */
  vec *x;                  /* [steps][INPUTS] */
  int32_t *symbol;         /* [steps][LANES]: each in 0 … INPUTS-1, before the start too */
  vec *target;             /* [steps or 1][OUTPUTS] */
  int32_t *target_symbol;  /* [steps or 1][LANES] */
  uvec *words;             /* [steps]: scratch of the task */
} sequence;

/* ---- random numbers ------------------------------------------------------------------
 * Philox 4x32-10, a counter-based generator: word w of a sequence is a pure function of
 * (seed, purpose, stream, number of the sequence, w), so a network meets the same sequences in
 * whatever lane, on whatever machine, and however often it is interrupted. */

typedef struct {
  uint32_t key[2]; /* the seed */
  uint32_t purpose;
  uvec stream, number; /* per lane */
} source;

/* Product of the even lanes of a and b, to 64 bits. */
INLINE pairs even_product(pairs a, pairs b) {
#if defined(__x86_64__) && (defined(__AVX512F__) || defined(__AVX2__))
  pairs r; /* the compiler's own 64-bit product costs three times as much */
  __asm__("vpmuludq %2, %1, %0" : "=v"(r) : "v"(a), "v"(b));
  return r;
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

/* The high 32 bits of x · factor. */
INLINE uvec high_product(uvec x, uint32_t factor) {
  const pairs f = (pairs){0} + factor, all = (pairs)x;
  const pairs even = even_product(all, f), odd = even_product(all >> 32, f);
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "lanes of a pair are assumed little-endian"
#endif
  return (uvec)((even >> 32) | (odd & 0xFFFFFFFF00000000u));
}

INLINE void philox(const source *r, uvec block, uvec out[4]) {
  uvec c0 = block, c1 = r->number, c2 = r->stream, c3 = block * 0 + r->purpose;
  uint32_t k0 = r->key[0], k1 = r->key[1];
  for (int round = 0; round < 10; round++) {
    const uvec h0 = high_product(c0, 0xD2511F53u), l0 = c0 * 0xD2511F53u;
    const uvec h1 = high_product(c2, 0xCD9E8D57u), l1 = c2 * 0xCD9E8D57u;
    c0 = h1 ^ c1 ^ k0;
    c2 = h0 ^ c3 ^ k1;
    c1 = l1;
    c3 = l0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* What a sequence decides once (length, positions, class): words 0 … 4*HEADER-1. */
#define HEADER 4
typedef struct { uvec word[4 * HEADER]; } header;

INLINE header draw_header(const source *r) {
  header h;
  for (uint32_t b = 0; b < HEADER; b++) philox(r, (uvec){0} + b, h.word + 4 * b);
  return h;
}

/* A whole number in 0 … n-1. */
INLINE int32_t below(uint32_t word, int32_t n) { return (int32_t)(((uint64_t)word * (uint32_t)n) >> 32); }

/* [0, 1), exact in float32: the top 24 bits. */
INLINE vec unit(uvec word) {
  return __builtin_convertvector((word >> 8), vec) * (real)(1.0 / 16777216.0);
}

/* The words of single steps are counted from the end of the sequence, where lanes are aligned:
 * the one of step t is word 4*HEADER + (steps-1-t)·each + k, k < each. */
static void draw_steps(const source *r, long steps, uvec *to /* [steps] */) {
  for (long back = 0; back < steps; back += 4) {
    uvec out[4];
    philox(r, (uvec){0} + (uint32_t)(HEADER + back / 4), out);
    for (int k = 0; k < 4 && back + k < steps; k++) to[steps - 1 - back - k] = out[k];
  }
}

/* Lengths [LANES] -> where each lane starts. */
static void set_lengths(sequence *s, const int32_t *length) {
  s->steps = s->together = 0;
  for (int l = 0; l < LANES; l++) s->steps = length[l] > s->steps ? length[l] : s->steps;
  for (int l = 0; l < LANES; l++) {
    s->start[l] = (int32_t)(s->steps - length[l]);
    s->together = s->start[l] > s->together ? s->start[l] : s->together;
  }
}
