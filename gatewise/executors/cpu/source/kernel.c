/* One recurrent layer in one direction, over a whole sequence: what forward.c and backward.c share.
 *
 * Followed by forward.c, backward.c and packing.c. Included after vector.h and the generated part of a cell, which defines
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
 *            form, overwritten in place, serves a state nobody reads again. The rows of the first
 *            one, the output, may lie further apart: in one half of what two directions write
 *   first[s] [B, P]  initial state             read
 *   last[s]  [B, P]  state after a row's last step  written; null where nobody asks
 *   kept     [T, B, W*P], W = max(NSAVE, NG)   forward writes kept values, backward replaces
 *            them by the derivatives of the NG accumulators
 *   record   [NR][T, B, P]                     written by forward; backward reads gradients.
 *            Records and the output are zero at steps that do not exist, like d_input
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

/* Arguments, in the order of buffers.py and gradient.py. */
enum { N_STEPS, N_BATCH, N_INPUTS, N_UNITS, N_PADDED, N_REVERSE, N_THREADS, N_SPLIT, N_X_STEP, N_X_ROW,
       N_KEPT_STEP, N_OUTPUT_ROW, N_STATE_STEP, N_COUNT = N_STATE_STEP + NS,
       /* backward only */
       N_LATER = N_COUNT, N_D_OUTPUT_ROW };
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
    if (k > 2000) sched_yield(); /* some 50 µs: more threads than free cores */
  }
}

/* Where the rows of thread `id` begin: all threads have equally many steps, whose lengths may
 * differ from row to row. */
static long first_row(const job *j, long id) {
  const long batch = j->n[N_BATCH], threads = j->n[N_THREADS];
  const int64_t *lengths = j->p[P_LENGTHS];
  if (!lengths || id == threads) return batch * id / threads;
  long all = 0, before = 0, row = 0;
  for (long k = 0; k < batch; k++) all += lengths[k];
  for (; row < batch && (2 * before + lengths[row]) * threads < 2 * all * id; row++)
    before += lengths[row];
  return row;
}

static part share(const job *j, long id) {
  const int64_t *n = j->n;
  const long vectors = n[N_PADDED] / LANES, threads = n[N_THREADS];
  part w = {id, 0, n[N_BATCH], 0, vectors, 0};
  if (j->arrived) {
    w.from = vectors * id / threads;
    w.to = vectors * (id + 1) / threads;
  } else {
    w.begin = first_row(j, id);
    w.end = first_row(j, id + 1);
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

INLINE real *state_row(const job *j, int k, long t, long row) {
  const int64_t *n = j->n;
  return (real *)j->p[P_STATE + k] + t * n[N_STATE_STEP + k] + row * n[k ? N_PADDED : N_OUTPUT_ROW];
}

#if HELD == INT8
/*@bytes@*/
#endif

/* With 16 registers a tile of 12 sums holds its rows' operands and reads each weight once; left to
 * itself, the compiler reads a weight from memory again for every row. */
#define HOLD_ROWS(rows, weights) (REGISTERS == 16 && (rows) <= (weights))
#if HELD == FULL && defined(__AVX__)
#define IN_REGISTER(v) __asm__("" : "+x"(v))
#else
#define IN_REGISTER(v) (void)(v)
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
      /* Beside the sums there is room for the fewer of the two and one of the others. */
      spread a[8];
      weights w[NG > 4 ? NG : 4];
#pragma GCC unroll 24
      for (int r = 0; HOLD_ROWS(mr, nu * ng) && r < mr; r++) a[r] = spread_operand(rows[r] + k);
#pragma GCC unroll 24
      for (int g = 0; g < ng; g++) {
        w[g] = load_weights(from + u * panel_step + g * LANES);
        if (HOLD_ROWS(mr, nu * ng)) IN_REGISTER(w[g]);
#pragma GCC unroll 24
        for (int r = 0; HOLD_ROWS(mr, nu * ng) && r < mr; r++) {
          vec *sum = acc + (r * nu + u) * stride + gates[g];
          *sum = accumulate(*sum, a[r], w[g]);
        }
      }
#pragma GCC unroll 24
      for (int r = 0; !HOLD_ROWS(mr, nu * ng) && r < mr; r++) {
        const spread b = spread_operand(rows[r] + k);
#pragma GCC unroll 24
        for (int g = 0; g < ng; g++) {
          vec *sum = acc + (r * nu + u) * stride + gates[g];
          *sum = accumulate(*sum, b, w[g]);
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
                    : state_row(j, k, before, row);
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
  if (left == most + 1 && most > 2) return most - 1; /* and then 2: one row would wait */
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

/* What the launcher must know to provide the buffers. */
int64_t gw_lanes(void) { return LANES; }
int64_t gw_group(void) { return GROUP; }
int64_t gw_head(void) { return HEAD; }
int64_t gw_native(void) { return NATIVE; }
int64_t gw_width(void) { return WIDTH; }
int64_t gw_means(void) { return NMEANS; }
int64_t gw_collected(void) { return NCOLLECTED; }
int64_t gw_history(int64_t state) { return HISTORY[state]; }
