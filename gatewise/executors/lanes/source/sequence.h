/* The sequences of LANES networks, and the random numbers they are drawn from.
 *
 * Included after vector.h, philox.h and INPUTS, OUTPUTS. A task is a C file that includes nothing and
 * defines
 *   static long task_steps(const double *param): the most steps a sequence can have;
 *   static void task_draw(const double *param, const source *r, sequence *s): fills s.
 */
#include <math.h>

#define UNROLL _Pragma("GCC unroll 32")

typedef int32_t ints __attribute__((vector_size(4 * LANES)));

/* Sequences are aligned at their ends: a shorter one starts later. */
typedef struct {
  long steps;              /* of the longest lane */
  long together;           /* from this step on every lane has begun */
  int32_t start[LANES];    /* first step of each lane */
  vec *x;                  /* [steps][INPUTS] */
  int32_t *symbol;         /* [steps][LANES]: each in 0 … INPUTS-1, before the start too */
  vec *target;             /* [steps or 1][OUTPUTS] */
  int32_t *target_symbol;  /* [steps or 1][LANES] */
  int32_t *allowed;        /* [steps][LANES], RANKED: bit k set where output k may be the largest */
  uvec *words;             /* [steps]: scratch of the task */
} sequence;

/* ---- random numbers ------------------------------------------------------------------
 * Philox (philox.h), a counter-based generator: word w of a sequence is a pure function of
 * (seed, purpose, stream, number of the sequence, w), so a network meets the same sequences in
 * whatever lane, on whatever machine, and however often it is interrupted. */

#define TRAINING 0 /* the purpose of what networks learn from; any other is a test */

typedef struct {
  uint32_t key[2]; /* the seed */
  uint32_t purpose;
  uvec stream, number; /* per lane */
} source;

INLINE void draw(const source *r, uvec block, uvec out[4]) {
  const uvec counter[4] = {block, r->number, r->stream, block * 0 + r->purpose};
  philox(counter, r->key, out);
}

/* What a sequence decides once (length, positions, class): words 0 … 4*HEADER-1. */
#define HEADER 4
typedef struct { uvec word[4 * HEADER]; } header;

INLINE header draw_header(const source *r) {
  header h;
  for (uint32_t b = 0; b < HEADER; b++) draw(r, (uvec){0} + b, h.word + 4 * b);
  return h;
}

/* A whole number in 0 … n-1. */
INLINE int32_t below(uint32_t word, int32_t n) { return (int32_t)(((uint64_t)word * (uint32_t)n) >> 32); }

/* The same in every lane, as symbols `from` … from + n-1. */
INLINE void symbols_below(int32_t *to /* [LANES] */, uvec word, int32_t n, int32_t from) {
  const uvec number = high_product(word, (uint32_t)n) + (uint32_t)from;
  memcpy(to, &number, sizeof number);
}

/* The words of single steps are counted from the end of the sequence, where lanes are aligned:
 * the one of step t is word 4*HEADER + (steps-1-t)·each + k, k < each. */
static void draw_steps(const source *r, long steps, uvec *to /* [steps] */) {
  for (long back = 0; back < steps; back += 4) {
    uvec out[4];
    draw(r, (uvec){0} + (uint32_t)(HEADER + back / 4), out);
    for (int k = 0; k < 4 && back + k < steps; k++) to[steps - 1 - back - k] = out[k];
  }
}

/* ---- normal deviates ------------------------------------------------------------------
 * Box and Muller (1958): sqrt(-2 ln u) times the cosine and the sine of an angle, from the two
 * words of an even step and the one after it, counted from the end. In float32 for either type. */

typedef float floats __attribute__((vector_size(4 * LANES)));

INLINE uvec float_bits(floats x) { uvec b; memcpy(&b, &x, sizeof b); return b; }
INLINE floats bits_to_float(uvec b) { floats x; memcpy(&x, &b, sizeof x); return x; }
INLINE floats either(uvec mask, floats a, floats b) {
  return bits_to_float((float_bits(a) & mask) | (float_bits(b) & ~mask));
}

/* ln x of a normal number: x = 2^e m, m in [1/√2, √2), ln m = 2 artanh((m - 1) / (m + 1)) by five
 * terms of its series; what is left out is below 1e-8 of it. */
INLINE floats log_of(floats x) {
  const uvec shift = (float_bits(x) - 0x3f3504f3u) >> 23 << 23; /* of e */
  const floats m = bits_to_float(float_bits(x) - shift);
  const floats e = __builtin_convertvector((ints)shift >> 23, floats);
  const floats s = (m - 1) / (m + 1), z = s * s;
  const floats series = 2 + z * (0.66666667f + z * (0.4f + z * (0.28571429f + z * 0.22222222f)));
  return s * series + e * 0.69314718f;
}

INLINE void normal_pair(uvec first, uvec second, vec *a, vec *b) {
  const floats u = __builtin_convertvector((ints)(first >> 8) + 1, floats) * (1 / 16777216.0f);
  floats r = -2 * log_of(u);
  for (int l = 0; l < LANES; l++) r[l] = sqrtf(r[l]);
  /* a quarter turn from the two highest bits, and an angle in [-1, 1) · pi/4 from the next 24 */
  const floats t = __builtin_convertvector((ints)(second << 2) >> 8, floats) * (1 / 8388608.0f);
  const floats x = t * 0.78539816f, z = x * x;
  const floats s = x + x * z * (-1.6666655e-1f + z * (8.3321609e-3f + z * -1.9515296e-4f));
  const floats c = 1 + z * (-0.5f + z * (4.1666646e-2f + z * (-1.3887316e-3f + z * 2.4433157e-5f)));
  const uvec swap = -(second >> 30 & 1), minus_s = second & 0x80000000u;
  const uvec minus_c = (second ^ second << 1) & 0x80000000u;
  const floats cosine = either(swap, s, c), sine = either(swap, c, s);
  *a = __builtin_convertvector(r * bits_to_float(float_bits(cosine) ^ minus_c), vec);
  *b = __builtin_convertvector(r * bits_to_float(float_bits(sine) ^ minus_s), vec);
}

/* A deviate for every step. */
static void draw_normals(const source *r, long steps, vec *to /* [steps] */) {
  for (long back = 0; back < steps; back += 4) {
    uvec word[4];
    vec value[4];
    draw(r, (uvec){0} + (uint32_t)(HEADER + back / 4), word);
    normal_pair(word[0], word[1], value, value + 1);
    normal_pair(word[2], word[3], value + 2, value + 3);
    for (int k = 0; k < 4 && back + k < steps; k++) to[steps - 1 - back - k] = value[k];
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
