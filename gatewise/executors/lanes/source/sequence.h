/* The sequences of LANES networks, and the random numbers they are drawn from.
 *
 * Included after vector.h, philox.h and INPUTS, OUTPUTS. A task is a C file that includes nothing and
 * defines
 *   static long task_steps(const double *param): the most steps a sequence can have;
 *   static void task_draw(const double *param, const source *r, sequence *s): fills s.
 */
#include <math.h>

#define UNROLL _Pragma("GCC unroll 32")

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
 * Philox (philox.h), a counter-based generator: word w of a sequence is a pure function of
 * (seed, purpose, stream, number of the sequence, w), so a network meets the same sequences in
 * whatever lane, on whatever machine, and however often it is interrupted. */

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

/* The words of single steps are counted from the end of the sequence, where lanes are aligned:
 * the one of step t is word 4*HEADER + (steps-1-t)·each + k, k < each. */
static void draw_steps(const source *r, long steps, uvec *to /* [steps] */) {
  for (long back = 0; back < steps; back += 4) {
    uvec out[4];
    draw(r, (uvec){0} + (uint32_t)(HEADER + back / 4), out);
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
