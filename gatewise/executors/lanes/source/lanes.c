/* Small networks, one per vector lane, that learn by the traces of the 1997 rule; EXACT: by
 * real-time recurrent learning, which cuts no edge; WHOLE: by a sweep back (sweep.c), nor does that.
 * Here: what a network is, and one step forward. Then traces.c, errors.c, sweep.c, run.c.
 *
 * Included after vector.h, sequence.h and the generated part, which defines the cell
 *   NG pre-activations, NS states, NP per-unit parameters, NSAVE kept values,
 *   step_forward(), step_error(), step_jacobian(): the equations of one unit,
 *   NC carried states (CARRIED; at most one), NTA traced pre-activations (TRACED), NTP traced parameters,
 *   RIGID: the carried state's self-weight is the constant 1,
 * and the network
 *   INPUTS, UNITS, OUTPUTS; BLOCK cells share the pre-activations with SHARED[a];
 *   ROWS pre-activations in all, those of `a` from ROW0[a] on; FED fed-back values;
 *   HEAD (LOGISTIC, LINEAR, SOFTMAX, NONE: the first units are the outputs), HEAD_BIAS, HEAD_INPUTS, SLOPE: e_k carries f'(net_k);
 *   SYMBOLS: an input is a symbol's number (one-hot; of more than 16 never multiplied out);
 *   EVERY_STEP: a target at every step, else at the end; TARGET_SYMBOLS: it is a symbol;
 *   JUDGE_END: only the last step's error counts for success; STEPWISE: weights change at every
 *   target, else after the sequence; RANKED: a step is right when the outputs that may come are
 *   the largest; START[s]: state s before the first step.
 *
 * Every number of a network is a lane of a `vec`. Lanes meet at the *ends* of their sequences:
 * a shorter one starts later, so that all reach their last step, where most of the work is, at
 * once. Before its start a lane computes on whatever the buffers hold (finite) and remembers
 * nothing of it.
 *
 * Buffers, all owned by the caller (vec = LANES numbers, one per network):
 *   weight [SOURCES][ROWS]   sources: inputs, fed-back values, 1 (bias); absent ones stay 0
 *   param  [NP][UNITS], head [HEAD_SOURCES][OUTPUTS] (inputs, units, 1)
 *   trace  [UNITS][NTA][SOURCES], ptrace [UNITS][NTP]: scratch; EXACT: trace [ROWS][SOURCES][UNITS]
 *   sum_*  as weight, param, head: scratch, where weights change after the sequence only
 *   tape   [steps]: scratch, where WHOLE
 */
#include <stdlib.h>

#define SOURCES (INPUTS + FED + 1)
#define FED_AT INPUTS
#define ONE_AT (INPUTS + FED)
#define HEAD_SOURCES (INPUTS * HEAD_INPUTS + UNITS + 1)
#define HEAD_UNITS (INPUTS * HEAD_INPUTS)
#define HEAD_ONE (HEAD_UNITS + UNITS)
#define SUMS (WHOLE || (EVERY_STEP && !STEPWISE))
/* Few symbols are as cheap as numbers, 0 or 1; of many, each lane reads its own column. */
#define SPARSE (SYMBOLS && INPUTS > 16)
#define AT_LEAST_1(n) ((n) < 1 ? 1 : (n))

/* What the sweep back reads of a step. */
typedef struct {
  vec y[SOURCES], previous[UNITS][NS], next[UNITS][NS], kept[UNITS][NSAVE + 1];
  vec d_h[UNITS]; /* -∂E/∂h of the step's own error */
} record;

typedef struct {
  vec *weight, *param, *head;
  vec *trace, *ptrace, *sum_weight, *sum_param, *sum_head;
  record *tape;
  vec rate;                     /* learning rate; 0 where a network does not learn */
  /* of the sequence: largest |error| (RANKED: 1 if a step is wrong), sums of error², |error| */
  vec worst, squared, absolute;
  long judged;                  /* errors that went into the sums, per lane at its full length */
} network;

/* What one step leaves for the learning that follows it. */
typedef struct {
  vec *y; /* [SOURCES] as the hidden layer saw them; inputs only if not SPARSE */
  const int32_t *symbol;
  int same; /* all lanes have the same symbol */
  vec state[2][UNITS][NS];
  vec kept[UNITS][NSAVE + 1];
  int now; /* which of `state` is the previous one */
} step_data;

/* h of this step. */
INLINE vec output_of(const step_data *d, int u) { return d->state[!d->now][u][0]; }

INLINE int row_of(int a, int u) { return ROW0[a] + (SHARED[a] ? u / BLOCK : u); }

typedef int32_t lane_numbers __attribute__((vector_size(4 * LANES), aligned(4)));

INLINE ivec begun(const sequence *s, long t) {
  return __builtin_convertvector(*(const lane_numbers *)s->start, vec) <= splat((real)t);
}

/* ---- one step forward ---------------------------------------------------------------- */

INLINE ivec numbers(const int32_t *of_lane) {
  return __builtin_convertvector(*(const lane_numbers *)of_lane, ivec);
}

INLINE vec one_where(const int32_t *of_lane, int number) {
  return blend(numbers(of_lane) == number, splat(1), splat(0));
}

INLINE int all_same(const int32_t *of_lane) {
  int other = 0;
  for (int l = 1; l < LANES; l++) other |= of_lane[l] ^ of_lane[0];
  return !other;
}

/* Adds each lane's column of a table. */
INLINE void gather(vec *sum, const vec *table, int columns, const step_data *d, int count) {
  const int32_t *symbol = d->symbol;
  if (d->same) {
    for (int k = 0; k < count; k++) sum[k] += table[(long)symbol[0] * columns + k];
    return;
  }
  real column[count][LANES];
  for (int l = 0; l < LANES; l++) {
    const real *from = (const real *)(table + (long)symbol[l] * columns) + l;
    for (int k = 0; k < count; k++) column[k][l] = from[k * LANES];
  }
  for (int k = 0; k < count; k++) sum[k] += load(column[k]);
}

INLINE void add_source(vec *sum, const network *n, vec y, int m, int r0) {
  const vec *w = n->weight + m * ROWS + r0;
  UNROLL for (int r = 0; r < ROW_TILE; r++) sum[r] += w[r] * y;
}

INLINE void hidden(const network *n, const sequence *s, long t, step_data *d) {
  vec(*previous)[NS] = d->state[d->now], (*next)[NS] = d->state[!d->now];
  vec a[ROWS];
#if SYMBOLS
  d->symbol = s->symbol + t * LANES;
#endif
#if SPARSE
  d->same = all_same(d->symbol);
#else
  for (int m = 0; m < INPUTS; m++)
    d->y[m] = SYMBOLS ? one_where(d->symbol, m) : s->x[t * INPUTS + m];
#endif
  for (int r0 = 0; r0 < ROWS; r0 += ROW_TILE) {
    vec sum[ROW_TILE];
    UNROLL for (int r = 0; r < ROW_TILE; r++) sum[r] = n->weight[ONE_AT * ROWS + r0 + r];
#if !SPARSE
    for (int m = 0; m < INPUTS; m++) add_source(sum, n, d->y[m], m, r0);
#endif
    /* From the last: h comes first among the fed-back values and is known last. Read where the
     * previous step wrote them: one more copy would be one more wait for memory. */
    int m = ONE_AT;
    UNROLL for (int k = NF - 1; k >= 0; k--) {
      const int each = SHARED_STATE[k] ? BLOCK : 1;
      UNROLL for (int u = UNITS - each; u >= 0; u -= each) {
        const vec y = previous[u][FEEDBACK[k]];
        add_source(sum, n, y, --m, r0);
        d->y[m] = y;
      }
    }
    UNROLL for (int r = 0; r < ROW_TILE; r++) a[r0 + r] = sum[r];
  }
#if SPARSE
  gather(a, n->weight, ROWS, d, ROWS);
#endif
  vec unit[UNITS][NG];
  UNROLL for (int u = 0; u < UNITS; u++)
    for (int k = 0; k < NG; k++) unit[u][k] = a[row_of(k, u)];
  step_forward(unit, previous, n->param, next, d->kept);
}
