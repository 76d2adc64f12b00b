/* One recurrent layer in one direction, over a whole sequence, forward and backward.
 *
 * Included after vector.h and the generated part of a cell, which defines
 *   NG accumulators (pre-activations), NS states, NP per-unit parameters, NF fed-back states,
 *   NSAVE kept values, NR recorded signals;
 *   X_GATE[NGX], H_GATE[NGH]: which accumulators take the input, which the fed-back values;
 *   FEEDBACK[NF]: which states U multiplies; CUT[NF]: which of these products carry no gradient;
 *   step_forward(), step_backward(): the equations on LANES units of one row.
 *
 * Shapes: T steps, B rows, I inputs, H units, P = H rounded up to whole vectors ("padded").
 * Every [.., P] buffer has P numbers a row; numbers past H are finite and are never read by a
 * product.
 *
 * Buffers (row-major; who owns them: the caller, for the length of the call)
 *   x        [T, B, I], strides given          read
 *   state[s] [T, B, P] or [B, P] (step 0)      written: the state after each step; the second
 *            form, overwritten in place, serves a state nobody reads again
 *   first[s] [B, P]  initial state             read
 *   last[s]  [B, P]  state after a row's last step  written; null where nobody asks
 *   kept     [T, B, W*P], W = max(NSAVE, NG)   forward writes kept values, backward replaces
 *            them by the derivatives of the NG accumulators
 *   record   [NR][T, B, P]                     written by forward; backward reads gradients
 *   packed_x [P/LANES][I][NGX][LANES], packed_h [P/LANES][NF][H][NGH][LANES]; these and the
 *            transposed ones are of `weight`s, GROUP inputs each: in place of I and H stand
 *            ENTRIES(I) and ENTRIES(H) (weights.h)
 *   d_wx, d_wh [sets] of packed_x's and packed_h's shapes, of `real`: weight gradients, written;
 *            null where nobody asks. Sets: threads, or 1 if N_LATER
 *   packed_t [NF][P/LANES][NGH][H][LANES]: U transposed, for the backward product
 *   packed_xt [I/LANES, rounded up][NGX][H][LANES]: W transposed
 *   d_input  [T, B, I]  written where a step exists; null where nobody asks
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

typedef void (*task)(void *, long);
/* Runs task(context, 0 … n-1). With `together`, either all at the same time, or not at all: then
 * it returns 0, and tasks may wait for each other. */
typedef int (*parallel_fn)(task, void *, long, int together);

/* Inlined into one function, the tiles take each other's registers. */
#define APART static __attribute__((noinline))
#define MAX_ROWS 128 /* rows one thread carries through a sequence at once */
#define SUMS (HELD == INT8 && NATIVE ? 2 : 1) /* registers for each sum: one per byte of a row */
#define BUDGET ((REGISTERS == 32 ? 24 : 12) / SUMS) /* sums that fit beside the operands */
#define TILE (BUDGET > NG ? BUDGET : NG) /* accumulators of the largest tile */
#define AT_LEAST_1(n) ((n) < 1 ? 1 : (n))
/* A tall tile shares weights among rows; narrow cells (few gates) take several vectors of
 * units so that each broadcast of an input serves more products. */
#define TALL_UNITS (NG == 1 ? 4 : NG == 2 ? 2 : 1)
#define TALL_ROWS AT_LEAST_1(BUDGET / (NG * TALL_UNITS) > 8 ? 8 : BUDGET / (NG * TALL_UNITS))
/* A thread with fewer rows takes its products with the input ahead, for some steps at a time,
 * which then share each weight that is read. */
#define FEW_ROWS (TALL_ROWS < 4 ? TALL_ROWS : 4)
#define AHEAD 32
#define FLAT_UNITS AT_LEAST_1(BUDGET / NG > 4 ? 4 : BUDGET / NG)
/* The backward product has one accumulator per vector of fed-back units. */
#define BACK_UNITS 4
#define BACK_ROWS (BUDGET / BACK_UNITS)
#define PAIR_ROWS (BUDGET / 2 > 8 ? 8 : BUDGET / 2)

/* Arguments, in the order of launch.py. */
enum { N_STEPS, N_BATCH, N_INPUTS, N_UNITS, N_PADDED, N_REVERSE, N_THREADS, N_SPLIT, N_X_STEP, N_X_ROW,
       N_KEPT_STEP, N_STATE_STEP, N_COUNT = N_STATE_STEP + NS,
       /* backward only */
       N_LATER = N_COUNT };
enum { P_X, P_PACKED_X, P_PACKED_H, P_BIAS, P_PARAM, P_KEPT, P_RESETS, P_LENGTHS, P_MASK,
       P_ZERO, P_CUT_STEPS, P_MEANS,
       P_PACKED_L, P_KEEP, P_FIRST = P_KEEP + NS, P_STATE = P_FIRST + NS, P_LAST = P_STATE + NS,
       P_RECORD = P_LAST + NS, P_COUNT = P_RECORD + NR,
       /* backward only */
       P_PACKED_T = P_COUNT, P_D_OUTPUT, P_D_RECORD, P_CARRY = P_D_RECORD + NR,
       P_D_BIAS = P_CARRY + NS, P_D_PARAM, P_D_WX, P_D_WH, P_PACKED_XT, P_D_INPUT,
       P_PACKED_LT, P_COLLECTED, P_D_MEANS };

typedef struct {
  const int64_t *n;
  void *const *p;
  atomic_long *arrived; /* null where threads do not wait for each other */
} job;

/* What one thread works on: some rows and all units, or (N_SPLIT: few rows, many units) all rows
 * and some vectors of units, meeting the others once a step. */
typedef struct {
  long id, begin, end; /* rows */
  long from, to;       /* vectors */
  long met;
} part;

static void meet(const job *j, part *w) {
  if (!j->arrived) return;
  const long all = ++w->met * j->n[N_THREADS];
  atomic_fetch_add(j->arrived, 1);
  for (long k = 0; atomic_load(j->arrived) < all; k++) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if (k > 20000) sched_yield(); /* more threads than free cores */
  }
}

static part share(const job *j, long id) {
  const int64_t *n = j->n;
  const long vectors = n[N_PADDED] / LANES, threads = n[N_THREADS];
  part w = {id, 0, n[N_BATCH], 0, vectors, 0};
  if (j->arrived) {
    w.from = vectors * id / threads;
    w.to = vectors * (id + 1) / threads;
  } else {
    w.begin = n[N_BATCH] * id / threads;
    w.end = n[N_BATCH] * (id + 1) / threads;
  }
  return w;
}

/* Run `work` on all threads; split only where they can really run at the same time. */
static void launch(task work, const int64_t *n, void *const *p, parallel_fn parallel) {
  atomic_long arrived = 0;
  job j = {n, p, &arrived};
  if (n[N_SPLIT] && n[N_THREADS] > 1 && parallel(work, &j, n[N_THREADS], 1)) return;
  j.arrived = NULL;
  parallel(work, &j, n[N_THREADS], 0);
}

#define WIDTH (NSAVE > NG ? NSAVE : NG)

/* Panels of one vector of units: of W, and of U for one fed-back state. */
#define X_PANEL(inputs) (ENTRIES(inputs) * NGX * LANES)
#define H_PANEL(units) (ENTRIES(units) * NGH * LANES)

INLINE real *kept_row(const job *j, long t, long row) {
  return (real *)j->p[P_KEPT] + t * j->n[N_KEPT_STEP] + row * WIDTH * j->n[N_PADDED];
}

#if HELD == INT8
/*@bytes@*/
#endif

/* acc[r][u][gates[g]] += rows[r][k] * panel[u][k][g], for k in 0..count, which are groups of
 * inputs. panel_step: distance between the panels of neighbouring vectors of units. */
INLINE void multiply(vec *acc, const int mr, const int nu, const int ng, const int stride,
                     const int *gates, const operand *const *rows, const weight *panel,
                     long panel_step, long count) {
#if HELD == INT8
  multiply_bytes(acc, mr, nu, ng, stride, gates, rows, panel, panel_step, count);
#else
  for (long k = 0; k < count; k++) {
    const weight *from = panel + k * ng * LANES;
#pragma GCC unroll 24
    for (int u = 0; u < nu; u++) {
      weights w[NG > 4 ? NG : 4];
#pragma GCC unroll 24
      for (int g = 0; g < ng; g++) w[g] = load_weights(from + u * panel_step + g * LANES);
#pragma GCC unroll 24
      for (int r = 0; r < mr; r++) {
        const spread a = spread_operand(rows[r] + k);
#pragma GCC unroll 24
        for (int g = 0; g < ng; g++) {
          vec *sum = acc + (r * nu + u) * stride + gates[g];
          *sum = accumulate(*sum, a, w[g]);
        }
      }
    }
  }
#endif
}

/* ---- rows of one step -------------------------------------------------------------- */

typedef struct {
  long count;
  long row[MAX_ROWS];
  const real *x[MAX_ROWS];
  const real *previous[NS][MAX_ROWS];
  const operand *seen[1 + NF][MAX_ROWS];  /* what products read: x and the fed-back values */
  int fresh[MAX_ROWS];                    /* previous is the initial or the zero state */
  const real *ahead[FEW_ROWS]; /* sums of bias and input, taken ahead; null: not taken */
} step_rows;

static const real *masked_copy(const real *value, const real *mask, long units, real *to) {
  for (long u = 0; u < units; u++) to[u] = value[u] * mask[u];
  return to;
}

/* Which rows run at step t, and where each finds its input and its previous states. */
static void find_rows(const job *j, long t, long begin, long end, step_rows *s) {
  const int64_t *n = j->n;
  const long batch = n[N_BATCH], padded = n[N_PADDED];
  const uint8_t *resets = j->p[P_RESETS];
  const int64_t *lengths = j->p[P_LENGTHS];
  s->count = 0;
  for (long row = begin; row < end; row++) {
    const long length = lengths ? lengths[row] : n[N_STEPS];
    if (t >= length) continue;
    const long i = s->count++;
    const int initial = t == (n[N_REVERSE] ? length - 1 : 0);
    const int reset = resets && resets[t * batch + row];
    const long before = n[N_REVERSE] ? t + 1 : t - 1;
    s->row[i] = row;
    s->fresh[i] = reset;
    s->x[i] = (const real *)j->p[P_X] + t * n[N_X_STEP] + row * n[N_X_ROW];
    for (int k = 0; k < NS; k++)
      s->previous[k][i] =
          reset ? (const real *)j->p[P_ZERO]
          : initial ? (const real *)j->p[P_FIRST + k] + row * padded
          : (const real *)j->p[P_STATE + k] + before * n[N_STATE_STEP + k] + row * padded;
  }
}

#define SEEN_ROOM(inputs, units) (ROOM(inputs) + NF * ROOM(units))

/* What the products of a step read; `room` is for SEEN_ROOM operands a row. */
static void see_rows(const job *j, step_rows *s, operand *room) {
  const long inputs = j->n[N_INPUTS], units = j->n[N_UNITS];
  const real *mask = j->p[P_MASK];
  for (long i = 0; i < s->count; i++) {
    s->seen[0][i] = as_operands(s->x[i], NULL, inputs, room);
    room += ROOM(inputs);
    for (int f = 0; f < NF; f++, room += ROOM(units))
      s->seen[1 + f][i] =
          as_operands(s->previous[FEEDBACK[f]][i],
                      mask ? mask + (s->row[i] * NF + f) * j->n[N_PADDED] : NULL, units, room);
  }
}

/* Calls CALL(rows) with `rows` a constant, so that its accumulators live in registers. Few
 * sizes, because each is compiled on its own. */
#define ONCE(n, other) ((n) == 1 || (n) == 2 || (n) == 4 || (n) < 1 ? (other) : (n))
#define EACH_ROW_COUNT(most, CALL)                       \
  case ONCE(most, -1): CALL(most); break;                \
  case ONCE((most) - 1, -2): CALL(AT_LEAST_1((most) - 1)); break; \
  case 1: CALL(1); break;                                \
  case 2: if ((most) >= 2) CALL(2); break;               \
  case 4: if ((most) >= 4) CALL(4); break;               \
  default: __builtin_trap(); /* tile_rows() gives no other */

/* How many of `left` rows the next tile takes: tiles of nearly equal size, because a small one
 * waits for its operands. */
INLINE long tile_rows(long left, long most) {
  const long tiles = (left + most - 1) / most, missing = tiles * most - left;
  if (missing == 0) return most;
  if (missing <= tiles && most > 1) return most - 1;
  return left >= 4 && most >= 4 ? 4 : left >= 2 && most >= 2 ? 2 : 1;
}

#if TRAINING || PHASES
/* ---- a product with one accumulator per vector of units ----------------------------- */

/* out[row] (+)= mask * sum over segments g and k < units of in[row][slots[g]][k] panel[g][k] */
typedef struct {
  long count;
  const real *in[MAX_ROWS];
  real *out[MAX_ROWS];
  const real *mask[MAX_ROWS]; /* [units], or null */
  int segments, add;
  long width;          /* numbers in an output row; none is written past it */
  const int *slots;    /* where a segment begins in a row, in padded units */
  const weight *panel; /* [vectors][segments][ENTRIES(units)][LANES] */
  operand *room;       /* for ROOM(units) operands per row and segment */
} product;

/* Segment g of row i, as operands. */
INLINE const operand *product_row(const product *q, long units, long padded, long i, int g) {
#if HELD == FULL
  return q->in[i] + q->slots[g] * padded;
#else
  return q->room + (i * q->segments + g) * ROOM(units);
#endif
}

INLINE void product_tile(const product *q, long units, long padded, long i0, const int mr,
                         long vector, const int nu) {
  static const int only[1] = {0};
  const long at = vector * LANES, groups = GROUPS(units), segment_step = ENTRIES(units) * LANES;
  const long panel_step = q->segments * segment_step;
  vec acc[TILE];
#pragma GCC unroll 24
  for (int k = 0; k < mr * nu; k++) acc[k] = splat(0);
  for (int g = 0; g < q->segments; g++) {
    const operand *rows[8];
#pragma GCC unroll 24
    for (int r = 0; r < mr; r++) rows[r] = product_row(q, units, padded, i0 + r, g);
    multiply(acc, mr, nu, 1, 1, only, rows, q->panel + vector * panel_step + g * segment_step,
             panel_step, groups);
  }
  vec sums[TILE];
#pragma GCC unroll 24
  for (int k = 0; k < mr * nu; k++) sums[k] = acc[k];
  for (int r = 0; r < mr; r++) {
    real *out = q->out[i0 + r] + at;
    const real *mask = q->mask[i0 + r];
    for (int u = 0; u < nu; u++) {
      const long o = u * LANES;
      vec sum = sums[r * nu + u];
      if (mask) {
        real m[LANES];
        for (int l = 0; l < LANES; l++) m[l] = at + o + l < units ? mask[at + o + l] : 0;
        sum *= load(m);
      }
      if (at + o + LANES <= q->width) store(out + o, q->add ? load(out + o) + sum : sum);
      else memcpy(out + o, &sum, (q->width - at - o) * sizeof(real)); /* never with add */
    }
  }
}

APART void product_wide(const product *q, long units, long padded, long i0, long mr, long v) {
#define CALL(m) product_tile(q, units, padded, i0, m, v, BACK_UNITS)
  switch (mr) { EACH_ROW_COUNT(BACK_ROWS, CALL) }
#undef CALL
}

APART void product_pair(const product *q, long units, long padded, long i0, long mr, long v) {
#define CALL(m) product_tile(q, units, padded, i0, m, v, 2)
  switch (mr) { EACH_ROW_COUNT(PAIR_ROWS, CALL) }
#undef CALL
}

APART void product_single(const product *q, long units, long padded, long i0, long mr, long v) {
#define CALL(m) product_tile(q, units, padded, i0, m, v, 1)
  switch (mr) { EACH_ROW_COUNT(8, CALL) }
#undef CALL
}

/* All rows, vectors [from, to). */
static void run_product(const product *q, long units, long padded, long from, long to) {
  for (long i = 0; HELD != FULL && i < q->count; i++)
    for (int g = 0; g < q->segments; g++)
      as_operands(q->in[i] + q->slots[g] * padded, NULL, units,
                  q->room + (i * q->segments + g) * ROOM(units));
  for (long v = from, width; v < to; v += width) {
    width = to - v >= BACK_UNITS ? BACK_UNITS : to - v >= 2 ? 2 : 1;
    const long most = width == BACK_UNITS ? BACK_ROWS : width == 2 ? PAIR_ROWS : 8;
    for (long i0 = 0, i1; i0 < q->count; i0 = i1) {
      i1 = i0 + tile_rows(q->count - i0, most);
      if (width == BACK_UNITS) product_wide(q, units, padded, i0, i1 - i0, v);
      else if (width == 2) product_pair(q, units, padded, i0, i1 - i0, v);
      else product_single(q, units, padded, i0, i1 - i0, v);
    }
  }
}
#endif

/* ---- forward ----------------------------------------------------------------------- */

/* acc = start, each row's [NG][P] */
INLINE void start_sums(const real *const *start, long padded, const int mr, long vector,
                       const int nu, vec *acc) {
#pragma GCC unroll 24
  for (int a = 0; a < mr * nu * NG; a++)
    acc[a] = load(start[a / (nu * NG)] + a % NG * padded + (vector + a / NG % nu) * LANES);
}

/* acc += W x */
INLINE void add_input(const job *j, const operand *const *rows, const int mr, long vector,
                      const int nu, vec *acc) {
  const long inputs = j->n[N_INPUTS], step = X_PANEL(inputs);
  multiply(acc, mr, nu, NGX, NG, X_GATE, rows, (const weight *)j->p[P_PACKED_X] + vector * step,
           step, GROUPS(inputs));
}

INLINE void forward_tile(const job *j, const step_rows *s, long t, long i0, const int mr,
                         long vector, const int nu) {
  const int64_t *n = j->n;
  const long padded = n[N_PADDED], units = n[N_UNITS];
  const long at = vector * LANES;

  const int taken = mr < FEW_ROWS && s->ahead[0];
  const operand *rows[8];
  const real *start[8];
  vec acc[TILE];
#pragma GCC unroll 24
  for (int r = 0; r < mr; r++) {
    rows[r] = s->seen[0][i0 + r];
    start[r] = taken ? s->ahead[i0 + r] : j->p[P_BIAS];
  }
  start_sums(start, padded, mr, vector, nu, acc);
  if (!taken) add_input(j, rows, mr, vector, nu, acc);
  const long state_step = H_PANEL(units), h_step = NF * state_step;
  const weight *packed_h = (const weight *)j->p[P_PACKED_H] + vector * h_step;
  for (int f = 0; f < NF; f++, packed_h += state_step) {
#pragma GCC unroll 24
    for (int r = 0; r < mr; r++) rows[r] = s->seen[1 + f][i0 + r];
    multiply(acc, mr, nu, NGH, NG, H_GATE, rows, packed_h, h_step, GROUPS(units));
  }
  vec sums[TILE]; /* in memory, so that the loop below need not be unrolled */
#pragma GCC unroll 24
  for (int k = 0; k < mr * nu * NG; k++) sums[k] = acc[k];

  for (int r = 0; r < mr; r++) {
    const long i = i0 + r, row = s->row[i];
    for (int u = 0; u < nu; u++) {
      const long o = at + u * LANES;
#if PHASES /* the equations need every unit's accumulators: they follow in phases.c */
      for (int g = 0; g < NG; g++)
        store(kept_row(j, t, row) + g * padded + o, sums[(r * nu + u) * NG + g]);
#else
      const real *param = j->p[P_PARAM];
      const long cell = (t * n[N_BATCH] + row) * padded + o;
      vec a[NG], previous[NS], keep[NS], p[NP + 1], next[NS], kept[NSAVE + 1], record[NR + 1];
      for (int g = 0; g < NG; g++) a[g] = sums[(r * nu + u) * NG + g];
      for (int k = 0; k < NS; k++) {
        previous[k] = load(s->previous[k][i] + o);
        keep[k] = ZONEOUT[k] ? load((const real *)j->p[P_KEEP + k] + cell)
                             : splat(0);
      }
      for (int k = 0; k < NP; k++) p[k] = load(param + k * padded + o);
      step_forward(a, previous, keep, p, next, kept, record);
      for (int k = 0; k < NS; k++)
        store((real *)j->p[P_STATE + k] + t * n[N_STATE_STEP + k] + row * padded + o, next[k]);
#if TRAINING
      for (int k = 0; k < NSAVE; k++)
        store((real *)kept_row(j, t, row) + k * padded + o, kept[k]);
#endif
      for (int k = 0; k < NR; k++)
        store((real *)j->p[P_RECORD + k] + cell, record[k]);
#endif
    }
  }
}

APART void forward_tall(const job *j, const step_rows *s, long t, long i0, long mr, long vector) {
#define CALL(m) forward_tile(j, s, t, i0, m, vector, TALL_UNITS)
  switch (mr) { EACH_ROW_COUNT(TALL_ROWS, CALL) }
#undef CALL
}

#if TALL_UNITS > 1
APART void forward_narrow(const job *j, const step_rows *s, long t, long i0, long mr,
                           long vector) {
#define CALL(m) forward_tile(j, s, t, i0, m, vector, 1)
  switch (mr) { EACH_ROW_COUNT(TALL_ROWS, CALL) }
#undef CALL
}
#else
#define forward_narrow forward_tall
#endif

APART void forward_flat(const job *j, const step_rows *s, long t, long i0, long vector) {
  forward_tile(j, s, t, i0, 1, vector, FLAT_UNITS);
}

static void forward_step(const job *j, const step_rows *s, long t, long vector, long vectors) {
  if (s->count == 1)
    for (; vector + FLAT_UNITS <= vectors; vector += FLAT_UNITS) forward_flat(j, s, t, 0, vector);
  while (vector < vectors) {
    const int tall = vector + TALL_UNITS <= vectors;
    for (long i0 = 0, i1; i0 < s->count; i0 = i1) {
      i1 = i0 + tile_rows(s->count - i0, TALL_ROWS);
      if (tall) forward_tall(j, s, t, i0, i1 - i0, vector);
      else forward_narrow(j, s, t, i0, i1 - i0, vector);
    }
    vector += tall ? TALL_UNITS : 1;
  }
}

#if PHASES
/*@phases@*/
#endif

/* Sums of one vector of units for `mr` steps of one row, to [steps][NG][P]. */
INLINE void ahead_tile(const job *j, const operand *const *rows, const int mr, long vector,
                       real *to, long to_step) {
  const real *start[8];
  vec acc[TILE];
#pragma GCC unroll 24
  for (int r = 0; r < mr; r++) start[r] = j->p[P_BIAS];
  start_sums(start, j->n[N_PADDED], mr, vector, 1, acc);
  add_input(j, rows, mr, vector, 1, acc);
#pragma GCC unroll 24
  for (int a = 0; a < mr * NG; a++)
    store(to + a / NG * to_step + a % NG * j->n[N_PADDED] + vector * LANES, acc[a]);
}

/* Steps k to k + count (as they run) of rows [begin, end), to [AHEAD][rows][NG][P]; `room` is for
 * TALL_ROWS rows of the input. */
APART void take_ahead(const job *j, const part *w, long k, long count, long begin, long end,
                       real *to, operand *room) {
  const int64_t *n = j->n;
  const long inputs = n[N_INPUTS], row_size = NG * n[N_PADDED], step_size = (end - begin) * row_size;
  for (long row = begin; row < end; row++, to += row_size)
    for (long i = 0, mr; i < count; i += mr) {
      const operand *rows[8];
      mr = tile_rows(count - i, TALL_ROWS);
      for (long r = 0; r < mr; r++) {
        const long t = n[N_REVERSE] ? n[N_STEPS] - 1 - k - i - r : k + i + r;
        const real *x = (const real *)j->p[P_X] + t * n[N_X_STEP] + row * n[N_X_ROW];
        rows[r] = as_operands(x, NULL, inputs, room + r * ROOM(inputs));
      }
      for (long v = w->from; v < w->to; v++) {
#define CALL(m) ahead_tile(j, rows, m, v, to + i * step_size, step_size)
        switch (mr) { EACH_ROW_COUNT(TALL_ROWS, CALL) }
#undef CALL
      }
    }
}

static void forward_sequence(const job *j, part *w, long begin, long end, operand *room) {
  const int64_t *n = j->n;
  const long steps = n[N_STEPS], padded = n[N_PADDED], row_size = NG * padded;
  const int few = end - begin < FEW_ROWS && steps > 1;
  real *ahead = few ? malloc(AHEAD * (end - begin) * row_size * sizeof(real)) : NULL;
  operand *ahead_room = few ? malloc((TALL_ROWS * ROOM(n[N_INPUTS]) + 1) * sizeof(operand)) : NULL;
  step_rows s = {.count = 0};
  for (long k = 0; k < steps; k++) {
    const long t = n[N_REVERSE] ? steps - 1 - k : k;
    find_rows(j, t, begin, end, &s);
    see_rows(j, &s, room);
    if (ahead && k % AHEAD == 0)
      take_ahead(j, w, k, steps - k < AHEAD ? steps - k : AHEAD, begin, end, ahead, ahead_room);
    for (long i = 0; ahead && i < s.count; i++)
      s.ahead[i] = ahead + (k % AHEAD * (end - begin) + s.row[i] - begin) * row_size;
    if (s.count) forward_step(j, &s, t, w->from, w->to);
#if PHASES
    if (s.count) forward_phases(j, &s, t, room);
#endif
    meet(j, w);
  }
  free(ahead);
  free(ahead_room);
  if (w->from > 0 || !j->p[P_LAST]) return; /* one thread copies for all */
  const int64_t *lengths = j->p[P_LENGTHS];
  for (long row = begin; row < end; row++) {
    const long length = lengths ? lengths[row] : steps;
    const long t = n[N_REVERSE] ? 0 : length - 1;
    for (int k = 0; k < NS; k++) {
      const real *from = length == 0 ? (const real *)j->p[P_FIRST + k] + row * padded
                                     : (const real *)j->p[P_STATE + k] +
                                           t * n[N_STATE_STEP + k] + row * padded;
      memcpy((real *)j->p[P_LAST + k] + row * padded, from, padded * sizeof(real));
    }
  }
}

/* Room for the operands of a part's rows, `each` a row; null where rows are read as they lie. */
static operand *operand_room(const job *j, const part *w, long each) {
  const long rows = w->end - w->begin < MAX_ROWS ? w->end - w->begin : MAX_ROWS;
  return HELD == FULL && !j->p[P_MASK] ? NULL : malloc((rows * each + 1) * sizeof(operand));
}

static void forward_task(void *context, long id) {
  const job *j = context;
  part w = share(j, id);
  const long inputs = j->n[N_INPUTS], units = j->n[N_UNITS];
  operand *room = operand_room(j, &w, SEEN_ROOM(inputs, units) + NLATE * ROOM(units));
  for (long row = w.begin; row < w.end; row += MAX_ROWS)
    forward_sequence(j, &w, row, row + MAX_ROWS < w.end ? row + MAX_ROWS : w.end, room);
  free(room);
}

void gw_forward(const int64_t *n, void *const *p, parallel_fn parallel) {
  launch(forward_task, n, p, parallel);
}

/* ---- backward ---------------------------------------------------------------------- */

#if TRAINING
#if !PHASES
/* Pointwise part: derivatives of the accumulators replace the kept values; the derivative by
 * the previous state (without the product with U) replaces the carry. */
static void backward_units(const job *j, const step_rows *s, long t, long vector, real *d_bias,
                           real *d_param) {
  const int64_t *n = j->n;
  const long padded = n[N_PADDED], at = vector * LANES;
  const real *param = j->p[P_PARAM], *d_output = j->p[P_D_OUTPUT];
  const uint8_t *cut_steps = j->p[P_CUT_STEPS];
  vec bias_sum[NG], param_sum[NP + 1], p[NP + 1];
  for (int g = 0; g < NG; g++) bias_sum[g] = load(d_bias + g * padded + at);
  for (int k = 0; k < NP; k++) {
    param_sum[k] = load(d_param + k * padded + at);
    p[k] = load(param + k * padded + at);
  }
  for (long i = 0; i < s->count; i++) {
    const long row = s->row[i], cell = (t * n[N_BATCH] + row) * padded + at;
    real *own = kept_row(j, t, row) + at;
    vec kept[NSAVE + 1], previous[NS], next[NS], keep[NS], d_next[NS], d_record[NR + 1];
    vec d_acc[NG], d_previous[NS], d_p[NP + 1];
    for (int k = 0; k < NSAVE; k++) kept[k] = load(own + k * padded);
    for (int k = 0; k < NS; k++) {
      previous[k] = load(s->previous[k][i] + at);
      next[k] = load((const real *)j->p[P_STATE + k] + t * n[N_STATE_STEP + k] + row * padded + at);
      keep[k] = ZONEOUT[k] ? load((const real *)j->p[P_KEEP + k] + cell) : splat(0);
      d_next[k] = load((const real *)j->p[P_CARRY + k] + row * padded + at);
    }
    if (d_output) d_next[0] += load(d_output + cell);
    for (int k = 0; k < NR; k++)
      d_record[k] = j->p[P_D_RECORD + k] ? load((const real *)j->p[P_D_RECORD + k] + cell)
                                         : splat(0);
    const vec open = splat(cut_steps && !cut_steps[t * n[N_BATCH] + row]);
    step_backward(kept, previous, next, keep, p, open, d_next, d_record, d_acc, d_previous, d_p);
    for (int g = 0; g < NG; g++) {
      store(own + g * padded, d_acc[g]);
      bias_sum[g] += d_acc[g];
    }
    for (int k = 0; k < NP; k++) param_sum[k] += d_p[k];
    for (int k = 0; k < NS; k++)
      store((real *)j->p[P_CARRY + k] + row * padded + at, d_previous[k]);
  }
  for (int g = 0; g < NG; g++) store(d_bias + g * padded + at, bias_sum[g]);
  for (int k = 0; k < NP; k++) store(d_param + k * padded + at, param_sum[k]);
}
#endif

/* carry[FEEDBACK[f]] += d(accumulators) U */
static void backward_product(const job *j, const step_rows *s, long t, long from, long to,
                             operand *room) {
  const int64_t *n = j->n;
  const long padded = n[N_PADDED], units = n[N_UNITS];
  const uint8_t *cut_steps = j->p[P_CUT_STEPS];
  const real *mask = j->p[P_MASK];
  product q;
  for (int f = 0; f < NF; f++) {
    if (CUT[f] && !cut_steps) continue; /* cut at every step */
    q = (product){.segments = NGH, .slots = H_GATE, .add = 1, .width = padded, .room = room};
    q.panel = (const weight *)j->p[P_PACKED_T] + f * (padded / LANES) * H_PANEL(units);
    for (long i = 0; i < s->count; i++) {
      const long row = s->row[i];
      if (CUT[f] && cut_steps[t * n[N_BATCH] + row]) continue;
      q.in[q.count] = kept_row(j, t, row);
      q.out[q.count] = (real *)j->p[P_CARRY + FEEDBACK[f]] + row * padded;
      q.mask[q.count++] = mask ? mask + (row * NF + f) * padded : NULL;
    }
    run_product(&q, units, padded, from, to);
  }
}

/* d_input = d(accumulators) W */
static void input_product(const job *j, const step_rows *s, long t, const part *w,
                          operand *room) {
  const int64_t *n = j->n;
  const long inputs = n[N_INPUTS], vectors = (inputs + LANES - 1) / LANES;
  const long all = j->arrived ? n[N_THREADS] : 1, id = j->arrived ? w->id : 0;
  product q = {.count = s->count, .segments = NGX, .slots = X_GATE, .width = inputs,
               .room = room};
  q.panel = j->p[P_PACKED_XT];
  for (long i = 0; i < s->count; i++) {
    q.in[i] = kept_row(j, t, s->row[i]);
    q.out[i] = (real *)j->p[P_D_INPUT] + (t * n[N_BATCH] + s->row[i]) * inputs;
    q.mask[i] = NULL;
  }
  run_product(&q, n[N_UNITS], n[N_PADDED], vectors * id / all, vectors * (id + 1) / all);
}

/* Weight gradients: outer products of the accumulators' derivatives with what the layer saw, over
 * samples (a step of a row). A small layer's are taken during the sweep, some samples at a time
 * while they are hot, each thread into panels of its own; a large layer's follow the sweep, the
 * panels split among the threads (N_LATER). Both copy their operands into reading order first. */
#define HOT_SAMPLES 128
#define MOST_SAMPLES 512
#define OUTER_UNITS(ng) ((ng) == 1 ? 4 : (ng) == 2 ? 2 : 1)
#define OUTER_WIDE(ng) AT_LEAST_1(BUDGET / AT_LEAST_1((ng) * OUTER_UNITS(ng)))
#define OUTER_MOST(ng) (OUTER_WIDE(ng) > 8 ? 8 : OUTER_WIDE(ng))

typedef struct {
  long count, most;
  int begun; /* the panels hold sums already */
  const real *d_acc[MOST_SAMPLES];
  const real *x[MOST_SAMPLES];
  const real *fed_back[NF + 1][MOST_SAMPLES];
  real *masked; /* room for `most` masked copies of the fed-back values, or null */
  real *seen;   /* room for `most` times the larger of inputs and units */
  real *panel;  /* room for `most` times the derivatives of a tile */
} sample_list;

/* to[u][k][g] += sum over samples of seen[k] * panel[u][g], for nk values of k, nu of u. */
INLINE void outer_tile(const sample_list *s, const real *seen, const int nk, const int nu,
                       const int ng, long unit_step, real *to) {
  const int width = nu * ng;
  const real *panel = s->panel;
  vec acc[TILE];
#pragma GCC unroll 24
  for (int a = 0; a < nk * width; a++)
    acc[a] = s->begun ? load(to + a % width / ng * unit_step + (a / width * ng + a % ng) * LANES)
                      : splat(0);
  for (long i = 0; i < s->count; i++, seen += nk, panel += width * LANES) {
    vec d[NG > 4 ? NG : 4];
#pragma GCC unroll 24
    for (int a = 0; a < width; a++) d[a] = load(panel + a * LANES);
#pragma GCC unroll 24
    for (int k = 0; k < nk; k++) {
      vec v = splat(seen[k]);
#pragma GCC unroll 24
      for (int a = 0; a < width; a++) acc[k * width + a] += v * d[a];
    }
  }
#pragma GCC unroll 24
  for (int a = 0; a < nk * width; a++)
    store(to + a % width / ng * unit_step + (a / width * ng + a % ng) * LANES, acc[a]);
}

/* Columns k to k + width of the samples' rows, [samples][width]. */
INLINE void copy_seen(const real *const *rows, long samples, long k, const int width, real *to) {
  for (long i = 0; i < samples; i++, to += width) memcpy(to, rows[i] + k, width * sizeof(real));
}

/* The derivatives of nu vectors of units, [samples][nu][ng][LANES]. */
INLINE void copy_derivatives(const sample_list *s, const int ng, const int *gates, long padded,
                             long vector, long nu) {
  real *to = s->panel;
  for (long i = 0; i < s->count; i++)
    for (long u = vector; u < vector + nu; u++)
      for (int g = 0; g < ng; g++, to += LANES)
        store(to, load(s->d_acc[i] + gates[g] * padded + u * LANES));
}

/* to[vectors][columns][ng][LANES] += what the samples contribute, for vectors [from, end). */
#define DEFINE_OUTER(name, NGATES, GATES)                                                       \
  static void name(const sample_list *s, const real *const *rows, long columns, long padded,    \
                   long step, long from, long end, real *to) {                                  \
    for (long k = 0, nk; k < columns; k += nk) {                                                \
      nk = tile_rows(columns - k, OUTER_MOST(NGATES));                                          \
      switch (nk) { EACH_ROW_COUNT(OUTER_MOST(NGATES), COPY) }                                  \
    }                                                                                           \
    for (long v = from, nu; v < end; v += nu) {                                                 \
      nu = end - v >= OUTER_UNITS(NGATES) ? OUTER_UNITS(NGATES) : 1;                            \
      copy_derivatives(s, NGATES, GATES, padded, v, nu);                                        \
      for (long k = 0, nk; k < columns; k += nk) {                                              \
        const real *seen = s->seen + k * s->count;                                              \
        real *here = to + v * step + k * NGATES * LANES;                                        \
        nk = tile_rows(columns - k, OUTER_MOST(NGATES));                                        \
        if (nu == OUTER_UNITS(NGATES)) switch (nk) { EACH_ROW_COUNT(OUTER_MOST(NGATES), WIDE) } \
        else switch (nk) { EACH_ROW_COUNT(OUTER_MOST(NGATES), NARROW) }                         \
      }                                                                                         \
    }                                                                                           \
  }
#define COPY(m) copy_seen(rows, s->count, k, m, s->seen + k * s->count)
#define WIDE(m) outer_tile(s, seen, m, OUTER_UNITS(NGX), NGX, step, here)
#define NARROW(m) outer_tile(s, seen, m, 1, NGX, step, here)
DEFINE_OUTER(outer_x, NGX, X_GATE)
#undef WIDE
#undef NARROW
#define WIDE(m) outer_tile(s, seen, m, OUTER_UNITS(NGH), NGH, step, here)
#define NARROW(m) outer_tile(s, seen, m, 1, NGH, step, here)
DEFINE_OUTER(outer_h, NGH, H_GATE)
#undef WIDE
#undef NARROW
#undef COPY

static sample_list new_samples(const job *j, long most) {
  const int64_t *n = j->n;
  const long widest = n[N_INPUTS] > n[N_UNITS] ? n[N_INPUTS] : n[N_UNITS];
  const long padded = n[N_PADDED], derivatives = (NG > 4 ? NG : 4) * LANES;
  sample_list s = {.most = most};
  if (!j->p[P_D_WX]) return s;
  s.seen = malloc(most * widest * sizeof(real));
  s.panel = aligned_alloc(VECTOR_BYTES, most * derivatives * sizeof(real));
  if (j->p[P_MASK]) s.masked = malloc(most * NF * padded * sizeof(real));
  return s;
}

static void free_samples(sample_list *s) {
  free(s->masked);
  free(s->seen);
  free(s->panel);
}

static void flush_samples(const job *j, sample_list *s, const part *w) {
  const int64_t *n = j->n;
  const long padded = n[N_PADDED], units = n[N_UNITS], inputs = n[N_INPUTS];
  const long x_step = inputs * NGX * LANES, h_step = NF * units * NGH * LANES;
  const long set = j->arrived || n[N_LATER] ? 0 : w->id * (padded / LANES);
  if (!j->p[P_D_WX]) return;
  outer_x(s, s->x, inputs, padded, x_step, w->from, w->to, (real *)j->p[P_D_WX] + set * x_step);
  real *d_h = (real *)j->p[P_D_WH] + set * h_step;
  for (int f = 0; f < NF; f++)
    outer_h(s, s->fed_back[f], units, padded, h_step, w->from, w->to,
            d_h + f * units * NGH * LANES);
  s->begun = 1;
  s->count = 0;
}

static void add_samples(const job *j, const step_rows *rows, long t, sample_list *s,
                        const part *w) {
  const int64_t *n = j->n;
  const long padded = n[N_PADDED], units = n[N_UNITS];
  const real *mask = j->p[P_MASK];
  for (long i = 0; i < rows->count; i++) {
    if (s->count == s->most) flush_samples(j, s, w);
    const long k = s->count++, row = rows->row[i];
    s->d_acc[k] = kept_row(j, t, row);
    s->x[k] = rows->x[i];
    for (int f = 0; f < NF; f++) {
      const real *value = rows->previous[FEEDBACK[f]][i];
      if (mask)
        value = masked_copy(value, mask + (row * NF + f) * padded, units,
                            s->masked + (k * NF + f) * padded);
      s->fed_back[f][k] = value;
    }
  }
}

static void backward_sequence(const job *j, part *w, long begin, long end, sample_list *samples,
                              operand *room) {
  const int64_t *n = j->n;
  const long steps = n[N_STEPS], padded = n[N_PADDED];
  const int64_t *lengths = j->p[P_LENGTHS];
  const long set = j->arrived ? 0 : w->id;
  real *d_bias = (real *)j->p[P_D_BIAS] + set * NG * padded;
  real *d_param = (real *)j->p[P_D_PARAM] + set * NP * padded;
  const long first = w->from * LANES, size = (w->to - w->from) * LANES * sizeof(real);
  step_rows s;
  for (long k = 0; k < steps; k++) {
    const long t = n[N_REVERSE] ? k : steps - 1 - k;
    find_rows(j, t, begin, end, &s);
    if (lengths) /* steps that do not exist contribute nothing to the weights' gradients */
      for (long row = begin; row < end; row++)
        if (t >= lengths[row])
          for (int a = 0; a < WIDTH; a++)
            memset(kept_row(j, t, row) + a * padded + first, 0, size);
#if PHASES
    if (s.count) backward_phases(j, &s, t, d_bias, d_param, room);
#else
    for (long vector = w->from; s.count && vector < w->to; vector++)
      backward_units(j, &s, t, vector, d_bias, d_param);
#endif
    meet(j, w); /* the product takes every unit's derivative; its result is this thread's own */
    if (!s.count) continue;
    if (j->p[P_D_WX] && !n[N_LATER]) add_samples(j, &s, t, samples, w);
    backward_product(j, &s, t, w->from, w->to, room);
    if (j->p[P_D_INPUT]) input_product(j, &s, t, w, room);
    for (long i = 0; i < s.count; i++)
      if (s.fresh[i]) /* nothing flows past a reset */
        for (int q = 0; q < NS; q++)
          memset((real *)j->p[P_CARRY + q] + s.row[i] * padded + first, 0, size);
  }
}

static void backward_task(void *context, long id) {
  const job *j = context;
  part w = share(j, id);
  operand *room = operand_room(j, &w, (NGX > NGH ? NGX : NGH) * ROOM(j->n[N_UNITS]));
  sample_list samples = new_samples(j, HOT_SAMPLES);
  for (long row = w.begin; row < w.end; row += MAX_ROWS)
    backward_sequence(j, &w, row, row + MAX_ROWS < w.end ? row + MAX_ROWS : w.end, &samples, room);
  flush_samples(j, &samples, &w);
  free_samples(&samples);
  free(room);
}

static void weights_task(void *context, long id) {
  const job *j = context;
  const int64_t *n = j->n;
  const long vectors = n[N_PADDED] / LANES, batch = n[N_BATCH];
  const part w = {id, 0, batch, vectors * id / n[N_THREADS], vectors * (id + 1) / n[N_THREADS], 0};
  sample_list samples = new_samples(j, MOST_SAMPLES);
  step_rows s;
  for (long t = 0; t < n[N_STEPS]; t++)
    for (long row = 0; row < batch; row += MAX_ROWS) {
      find_rows(j, t, row, row + MAX_ROWS < batch ? row + MAX_ROWS : batch, &s);
      add_samples(j, &s, t, &samples, &w);
    }
  flush_samples(j, &samples, &w);
  free_samples(&samples);
}

void gw_backward(const int64_t *n, void *const *p, parallel_fn parallel) {
  launch(backward_task, n, p, parallel);
  job j = {n, p, NULL};
  if (p[P_D_WX] && n[N_LATER]) parallel(weights_task, &j, n[N_THREADS], 0);
}
#endif

/* ---- packing ----------------------------------------------------------------------- */

/* From torch's layout (gates stacked: [gates*H, columns]) to panels. Arguments by position. */
enum { K_THREADS, K_INPUTS, K_UNITS, K_PADDED };
enum { W_IH, W_HH, B_IH, B_HH, W_PACKED_X, W_PACKED_H, W_PACKED_T, W_BIAS, W_PACKED_L,
       W_PACKED_LT, W_PACKED_XT };

/* What a panel begins with, for one lane of one of `ng` gates; the lane's scale. */
static real pack_head(const real *from, long step, long count, int ng, weight *to) {
  const real scale = scale_of(from, step, count);
#if HELD == INT8
  int32_t sum = 0;
  for (long k = 0; k < count; k++) sum += small_integer(from[k * step], scale);
  memcpy(to, &scale, sizeof scale);
  memcpy(to + ng * LANES, &sum, sizeof sum);
#endif
  return scale;
}

/* Of LANES rows of each gate, the first `columns` numbers: [ENTRIES(columns)][count][LANES]. */
static void pack_panel(const real *w, long row_step, long columns, long units, long at,
                       const int *accs, int count, weight *to) {
  for (int g = 0; g < count; g++) {
    real scale[LANES];
    for (int l = 0; l < LANES; l++) {
      const real *from = w + (GATE_OF[accs[g]] * units + at + l) * row_step;
      scale[l] = pack_head(from, 1, at + l < units ? columns : 0, count, to + g * LANES + l);
    }
    for (long k0 = 0; k0 < columns; k0 += 16) { /* 16 columns of LANES rows stay in L1 */
      const long k1 = k0 + 16 < columns ? k0 + 16 : columns;
      for (int l = 0; l < LANES; l++) {
        const real *from = w + (GATE_OF[accs[g]] * units + at + l) * row_step;
        for (long k = k0; k < k1; k += GROUP)
          to[((HEAD + k / GROUP) * count + g) * LANES + l] =
              at + l < units ? make_weight(from + k, 1, columns - k, scale[l]) : 0;
      }
    }
  }
}

/* LANES columns of each gate's rows, [count][GROUPS(units)][LANES]. */
static void pack_transposed(const real *w, long row, long columns, long at, long units,
                            const int *accs, int count, weight *to) {
  for (int g = 0; g < count; g++)
    for (long k = 0; k < units; k += GROUP, to += LANES) {
      const real *from = w + (GATE_OF[accs[g]] * units + k) * row + at;
      for (int l = 0; l < LANES; l++)
        to[l] = at + l < columns ? make_weight(from + l, row, units - k, 1) : 0;
    }
}

static void pack_task(void *context, long id) {
  const job *j = context;
  const int64_t *n = j->n;
  void *const *p = j->p;
  const long units = n[K_UNITS], padded = n[K_PADDED], inputs = n[K_INPUTS];
  const long vectors = padded / LANES, fed = NF * units;
  const real *b_ih = p[B_IH], *b_hh = p[B_HH], *w_hh = p[W_HH];
  for (long v = vectors * id / n[K_THREADS]; v < vectors * (id + 1) / n[K_THREADS]; v++) {
    const long at = v * LANES;
    pack_panel(p[W_IH], inputs, inputs, units, at, X_GATE, NGX,
               (weight *)p[W_PACKED_X] + v * X_PANEL(inputs));
    for (int f = 0; f < NF; f++)
      pack_panel(w_hh + f * units, fed, units, units, at, H_GATE, NGH,
                 (weight *)p[W_PACKED_H] + (v * NF + f) * H_PANEL(units));
    for (int a = 0; a < NG; a++)
      for (int l = 0; l < LANES; l++) {
        const long u = at + l, from = GATE_OF[a] * units + u;
        real b = 0;
        if (u < units && FROM_X[a] && b_ih) b += b_ih[from];
        if (u < units && BIAS_HH[a] && b_hh) b += b_hh[from];
        ((real *)p[W_BIAS])[a * padded + u] = b;
      }
#if PHASES
    for (int q = 0; q < NLATE; q++) {
      const real *from = w_hh + LATE_GATE[q] * units * units;
      const long to = (q * vectors + v) * ENTRIES(units) * LANES;
      weight *late = (weight *)p[W_PACKED_L] + to, *transposed = (weight *)p[W_PACKED_LT] + to;
      for (int l = 0; l < LANES; l++) {
        const int there = at + l < units;
        const real *row = from + (at + l) * units, *column = from + at + l;
        const real scale = pack_head(row, 1, there ? units : 0, 1, late + l);
        for (long k = 0; k < units; k += GROUP) {
          const long i = (HEAD + k / GROUP) * LANES + l, left = units - k;
          late[i] = there ? make_weight(row + k, 1, left, scale) : 0;
          if (TRAINING) transposed[i] = there ? make_weight(column + k * units, units, left, 1) : 0;
        }
      }
    }
#endif
    if (p[W_PACKED_T])
      for (int f = 0; f < NF; f++)
        pack_transposed(w_hh + f * units, fed, units, at, units, H_GATE, NGH,
                        (weight *)p[W_PACKED_T] + (f * vectors + v) * H_PANEL(units));
  }
  if (!p[W_PACKED_XT]) return;
  const long wide = (inputs + LANES - 1) / LANES;
  for (long v = wide * id / n[K_THREADS]; v < wide * (id + 1) / n[K_THREADS]; v++)
    pack_transposed(p[W_IH], inputs, inputs, v * LANES, units, X_GATE, NGX,
                    (weight *)p[W_PACKED_XT] + v * NGX * GROUPS(units) * LANES);
}

void gw_pack(const int64_t *n, void *const *p, parallel_fn parallel) {
  job j = {n, p, NULL};
  parallel(pack_task, &j, n[K_THREADS], 0);
}

#if TRAINING
/* Weight gradients from panels (one set per thread) back to torch's layout. */
enum { U_THREADS, U_INPUTS, U_UNITS, U_PADDED, U_SETS };
enum { G_X, G_H, G_W_IH, G_W_HH };

static void unpack_panel(const real *from, long set_step, long sets, long columns, long units,
                         long at, const int *accs, int count, real *w) {
  for (int g = 0; g < count; g++)
    for (long k0 = 0; k0 < columns; k0 += 16) { /* as in pack_panel */
      const long k1 = k0 + 16 < columns ? k0 + 16 : columns;
      for (int l = 0; l < LANES && at + l < units; l++) {
        real *to = w + (GATE_OF[accs[g]] * units + at + l) * columns;
        for (long k = k0; k < k1; k++) {
          const real *here = from + (k * count + g) * LANES + l;
          real sum = here[0];
          for (long s = 1; s < sets; s++) sum += here[s * set_step];
          to[k] = sum;
        }
      }
    }
}

static void unpack_task(void *context, long id) {
  const job *j = context;
  const int64_t *n = j->n;
  const long units = n[U_UNITS], inputs = n[U_INPUTS], vectors = n[U_PADDED] / LANES;
  const long fed = NF * units, x_step = inputs * NGX * LANES, h_step = fed * NGH * LANES;
  for (long v = vectors * id / n[U_THREADS]; v < vectors * (id + 1) / n[U_THREADS]; v++) {
    unpack_panel((const real *)j->p[G_X] + v * x_step, vectors * x_step, n[U_SETS], inputs, units,
                 v * LANES, X_GATE, NGX, j->p[G_W_IH]);
    unpack_panel((const real *)j->p[G_H] + v * h_step, vectors * h_step, n[U_SETS], fed, units,
                 v * LANES, H_GATE, NGH, j->p[G_W_HH]);
  }
}

void gw_unpack(const int64_t *n, void *const *p, parallel_fn parallel) {
  job j = {n, p, NULL};
  parallel(unpack_task, &j, n[U_THREADS], 0);
}
#endif

/* What the launcher must know to provide the buffers. */
int64_t gw_lanes(void) { return LANES; }
int64_t gw_group(void) { return GROUP; }
int64_t gw_head(void) { return HEAD; }
int64_t gw_native(void) { return NATIVE; }
int64_t gw_width(void) { return WIDTH; }
int64_t gw_means(void) { return NMEANS; }
int64_t gw_collected(void) { return NCOLLECTED; }
int64_t gw_history(int64_t state) { return HISTORY[state]; }
