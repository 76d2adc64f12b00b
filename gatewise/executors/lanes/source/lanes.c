/* Small networks, one per vector lane, that learn by the traces of the 1997 rule; EXACT: by
 * real-time recurrent learning, which cuts no edge; WHOLE: by a sweep back (sweep.c), nor does that.
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

/* ---- the traces ----------------------------------------------------------------------
 * One step adds slope[u,a] y[m] to every trace, after the old value has been multiplied by the
 * carried state's own derivative. That is one multiplication, one load and one store each; so the
 * factors of up to BLOCK_STEPS steps are kept, and the traces brought up to date when an error
 * needs them: a product of a thin and a flat matrix, whose sums stay in registers.
 */
#define BLOCK_STEPS 8
#define TRACES (UNITS * NTA)
#define TRACE_VECS ((long)SOURCES * UNITS * (EXACT ? ROWS : NTA))
#define FIRST (SPARSE ? FED_AT : 0) /* a symbol's column is reached by its number */

typedef struct {
  int count;
  vec slope[BLOCK_STEPS][TRACES + 1];
  vec y[BLOCK_STEPS][SOURCES]; /* the last of them is always 1 */
  vec carry[BLOCK_STEPS][UNITS];
  const int32_t *symbol[BLOCK_STEPS];
} pending;

#if !WHOLE
/* What this step adds, for later. */
INLINE void remember(network *n, step_data *d, pending *w, const int masked, ivec live) {
  vec(*previous)[NS] = d->state[d->now], (*next)[NS] = d->state[!d->now];
  const int j = w->count++;
  w->symbol[j] = d->symbol;
  if (EVERY_STEP && d->y != w->y[j]) memcpy(w->y[j], d->y, sizeof w->y[j]);
  UNROLL for (int u = 0; u < UNITS; u++) {
    vec p[NP + 1], slope[NTA + 1], pslope[NTP + 1], carry = splat(1);
    for (int k = 0; k < NP; k++) p[k] = n->param[k * UNITS + u];
    step_jacobian(d->kept[u], previous[u], next[u], p, &carry, slope, pslope);
    if (!RIGID) w->carry[j][u] = carry;
    for (int k = 0; k < NTA; k++)
      w->slope[j][u * NTA + k] = masked ? blend(live, slope[k], splat(0)) : slope[k];
    for (int k = 0; k < NTP; k++) {
      const vec now = masked ? blend(live, pslope[k], splat(0)) : pslope[k];
      n->ptrace[u * NTP + k] = carry * n->ptrace[u * NTP + k] + now;
    }
  }
}

/* Columns in even tiles of at most 12, the last one narrower. */
#define COLUMNS (SOURCES - FIRST)
#define TILES ((COLUMNS + 11) / 12)
#define TILE_M ((COLUMNS + TILES - 1) / TILES)
#define LAST_M (COLUMNS - TILE_M * (TILES - 1))
#define TILE_R (TRACES % 2 == 0 && REGISTERS == 32 ? 2 : 1)

INLINE void flush_tile(vec *S, const vec *decay, const pending *w, int r, int m, const int count) {
  vec sum[TILE_R][TILE_M];
  UNROLL for (int i = 0; i < TILE_R; i++)
    UNROLL for (int k = 0; k < count; k++) {
      sum[i][k] = S[(r + i) * SOURCES + m + k];
      if (!RIGID) sum[i][k] *= decay[i];
    }
  for (int j = 0; j < w->count; j++)
    UNROLL for (int i = 0; i < TILE_R; i++) {
      const vec slope = w->slope[j][r + i];
      UNROLL for (int k = 0; k < count; k++) sum[i][k] += slope * w->y[j][m + k];
    }
  UNROLL for (int i = 0; i < TILE_R; i++)
    UNROLL for (int k = 0; k < count; k++) S[(r + i) * SOURCES + m + k] = sum[i][k];
}

INLINE void flush_symbols(vec *S, vec decay, const pending *w, int r) {
  if (!RIGID)
    for (int m = 0; m < INPUTS; m++) S[m] *= decay;
  for (int j = 0; j < w->count; j++)
    for (int l = 0; l < LANES; l++) S[w->symbol[j][l]][l] += w->slope[j][r][l];
}

static void flush(network *n, pending *w) {
  vec decay[TRACES + 1];
  if (w->count == 0) return;
  if (!RIGID) /* what a step adds decays with every later step's carry */
    for (int u = 0; u < UNITS; u++) {
      vec later = splat(1);
      for (int j = w->count - 1; j >= 0; j--) {
        for (int k = 0; k < NTA; k++) w->slope[j][u * NTA + k] *= later;
        later *= w->carry[j][u];
      }
      for (int k = 0; k < NTA; k++) decay[u * NTA + k] = later;
    }
  for (int r = 0; r < TRACES; r += TILE_R) {
    for (int m = FIRST; m < SOURCES - LAST_M; m += TILE_M)
      flush_tile(n->trace, decay + r, w, r, m, TILE_M);
    flush_tile(n->trace, decay + r, w, r, SOURCES - LAST_M, LAST_M);
  }
  if (SPARSE)
    for (int r = 0; r < TRACES; r++)
      if (FROM_X[TRACED[r % AT_LEAST_1(NTA)]])
        flush_symbols(n->trace + (long)r * SOURCES, decay[r], w, r);
  w->count = 0;
}

/* ---- exact derivatives ----------------------------------------------------------------
 * trace[r][m][u] = dh_u / dweight[m][r]: one step multiplies it by the Jacobian of h by the h before
 * and adds the step's own derivative. Each column of UNITS numbers is read and written once.
 */
static void advance(network *n, const step_data *d, const int masked, ivec live) {
  vec(*previous)[NS] = d->state[d->now], (*next)[NS] = d->state[!d->now];
  vec slope[UNITS], jacobian[UNITS][UNITS]; /* [v][u]: dh_u / dh_v of the step before */
  for (int u = 0; u < UNITS; u++) {
    vec own[NTA + 1], unused[NTP + 1], carry = splat(0);
    step_jacobian(d->kept[u], previous[u], next[u], n->param, &carry, own, unused);
    slope[u] = masked ? blend(live, own[0], splat(0)) : own[0];
    for (int v = 0; v < UNITS; v++) jacobian[v][u] = slope[u] * n->weight[(FED_AT + v) * ROWS + u];
    jacobian[u][u] += masked ? blend(live, carry, splat(0)) : carry;
  }
  for (int r = 0; r < UNITS; r++)
    for (int m = 0; m < SOURCES; m++) {
      vec *column = n->trace + ((long)r * SOURCES + m) * UNITS, sum[UNITS];
      UNROLL for (int u = 0; u < UNITS; u++) sum[u] = splat(0);
      for (int v = 0; v < UNITS; v++)
        UNROLL for (int u = 0; u < UNITS; u++) sum[u] += jacobian[v][u] * column[v];
      sum[r] += slope[r] * (SPARSE && m < INPUTS ? one_where(d->symbol, m) : d->y[m]);
      UNROLL for (int u = 0; u < UNITS; u++) column[u] = sum[u];
    }
}

#endif /* !WHOLE */

/* ---- errors and weights -------------------------------------------------------------- */

static void outputs(const network *n, const step_data *d, vec *y) {
#if HEAD == NONE
  for (int k = 0; k < OUTPUTS; k++) y[k] = output_of(d, k);
  return;
#endif
  for (int k = 0; k < OUTPUTS; k++) y[k] = n->head[HEAD_ONE * OUTPUTS + k];
  for (int u = 0; u < UNITS; u++) {
    const vec *w = n->head + (HEAD_UNITS + u) * OUTPUTS, h = output_of(d, u);
    for (int k = 0; k < OUTPUTS; k++) y[k] += w[k] * h;
  }
#if HEAD_INPUTS
#if SPARSE
  gather(y, n->head, OUTPUTS, d, OUTPUTS);
#else
  for (int m = 0; m < INPUTS; m++)
    for (int k = 0; k < OUTPUTS; k++) y[k] += n->head[m * OUTPUTS + k] * d->y[m];
#endif
#endif
#if HEAD == LOGISTIC
  for (int k = 0; k < OUTPUTS; k++) y[k] = v_sigmoid(y[k]);
#elif HEAD == SOFTMAX
  vec most = y[0], total = splat(0);
  for (int k = 1; k < OUTPUTS; k++) most = blend(y[k] > most, y[k], most);
  for (int k = 0; k < OUTPUTS; k++) {
    y[k] = v_exp_clamped(at_least(y[k] - most, splat(-EXP_LIMIT)));
    total += y[k];
  }
  for (int k = 0; k < OUTPUTS; k++) y[k] /= total;
#endif
}

/* w += rate g now, or into the sum that is applied at the end of the sequence */
INLINE void change(const network *n, vec *w, vec *sum, vec g) {
  if (SUMS) *sum += g;
  else *w += n->rate * g;
}

#if SPARSE
/* The same for `count` numbers, from row `at` on, of each lane's column of a table. */
INLINE void change_column(const network *n, vec *table, vec *sums, int rows, int at,
                          const step_data *d, const vec *g, int count) {
  for (int k = 0; d->same && k < count; k++) {
    const long to = (long)d->symbol[0] * rows + at + k;
    change(n, table + to, sums + to, g[k]);
  }
  for (int l = 0; !d->same && l < LANES; l++)
    for (int k = 0; k < count; k++) {
      const long to = (long)d->symbol[l] * rows + at + k;
      if (SUMS) sums[to][l] += g[k][l];
      else table[to][l] += n->rate[l] * g[k][l];
    }
}
#endif

/* e: -∂E/∂net of the output units; changes the head and returns -∂E/∂h */
static void learn_head(network *n, const step_data *d, const vec *e, vec *d_h) {
#if HEAD == NONE
  for (int u = 0; u < UNITS; u++) d_h[u] = u < OUTPUTS ? e[u] : splat(0);
  return;
#endif
  for (int u = 0; u < UNITS; u++) {
    const long at = (HEAD_UNITS + u) * OUTPUTS;
    vec back = splat(0);
    for (int k = 0; k < OUTPUTS; k++) {
      back += n->head[at + k] * e[k];
      change(n, n->head + at + k, n->sum_head + at + k, e[k] * output_of(d, u));
    }
    d_h[u] = back;
  }
#if HEAD_INPUTS
  for (int m = 0; m < INPUTS; m++)
    for (int k = 0; k < OUTPUTS; k++) {
#if SPARSE
      break; /* only the symbol's column: below */
#else
      const long at = m * OUTPUTS + k;
      change(n, n->head + at, n->sum_head + at, e[k] * d->y[m]);
#endif
    }
#if SPARSE
  change_column(n, n->head, n->sum_head, OUTPUTS, 0, d, e, OUTPUTS);
#endif
#endif
#if HEAD_BIAS
  for (int k = 0; k < OUTPUTS; k++)
    change(n, n->head + HEAD_ONE * OUTPUTS + k, n->sum_head + HEAD_ONE * OUTPUTS + k, e[k]);
#endif
}

/* Gradient of one row of pre-activations by the sources from…to. */
INLINE void learn_row(network *n, const step_data *d, int a, int k, int u, const vec (*d_acc)[NG],
                      const vec (*d_previous)[NS], int from, int to, const int direct) {
  const int cells = SHARED[a] ? BLOCK : 1, row = row_of(a, u);
  for (int m = from; m < to; m++) {
    vec g = splat(0);
    for (int v = u; v < u + cells; v++) {
      if (direct) g += d_acc[v][a] * d->y[m];
      if (k >= 0) g += d_previous[v][CARRIED[0]] * n->trace[(v * NTA + k) * SOURCES + m];
    }
    change(n, n->weight + m * ROWS + row, n->sum_weight + m * ROWS + row, g);
  }
}

/* Gradients of all rows: of this step, and d_previous times the traces where there are any. */
INLINE void learn_rows(network *n, const step_data *d, const vec (*d_acc)[NG],
                       const vec (*d_previous)[NS]) {
  for (int a = 0; a < NG; a++) {
    const int k = TRACE_OF[a];
    for (int u = 0; u < UNITS; u += SHARED[a] ? BLOCK : 1) {
      if (FROM_X[a]) {
        if (!SPARSE || k >= 0)
          learn_row(n, d, a, k, u, d_acc, d_previous, 0, INPUTS, !SPARSE);
#if SPARSE
        vec g = splat(0);
        for (int v = u; v < u + (SHARED[a] ? BLOCK : 1); v++) g += d_acc[v][a];
        change_column(n, n->weight, n->sum_weight, ROWS, row_of(a, u), d, &g, 1);
#endif
      }
      if (FROM_H[a]) learn_row(n, d, a, k, u, d_acc, d_previous, FED_AT, ONE_AT, 1);
      if (BIASED[a]) learn_row(n, d, a, k, u, d_acc, d_previous, ONE_AT, SOURCES, 1);
    }
  }
}

#if WHOLE
static void record_step(network *n, long t, const step_data *d);
static void sweep_back(network *n, const sequence *s);
#else
static void learn_hidden(network *n, step_data *d, const vec *d_h) {
  vec(*previous)[NS] = d->state[d->now], (*next)[NS] = d->state[!d->now];
  vec d_acc[UNITS][NG], d_previous[UNITS][NS], d_p[UNITS][NP + 1];
  for (int u = 0; u < UNITS; u++) {
    vec p[NP + 1];
    for (int k = 0; k < NP; k++) p[k] = n->param[k * UNITS + u];
    step_error(d->kept[u], previous[u], next[u], p, d_h[u], d_acc[u], d_previous[u], d_p[u]);
  }
  learn_rows(n, d, d_acc, d_previous);
  for (int k = 0; k < NP; k++)
    for (int u = 0; u < UNITS; u++) {
      vec g = d_p[u][k];
      if (PTRACE_OF[k] >= 0) g += d_previous[u][CARRIED[0]] * n->ptrace[u * NTP + PTRACE_OF[k]];
      change(n, n->param + k * UNITS + u, n->sum_param + k * UNITS + u, g);
    }
}

/* As learn_hidden, with the derivatives that came along. */
static void learn_exact(network *n, const vec *d_h) {
  for (int r = 0; r < UNITS; r++)
    for (int m = 0; m < SOURCES - !BIASED[0]; m++) {
      const vec *column = n->trace + ((long)r * SOURCES + m) * UNITS;
      vec g = splat(0);
      for (int u = 0; u < UNITS; u++) g += d_h[u] * column[u];
      change(n, n->weight + m * ROWS + r, n->sum_weight + m * ROWS + r, g);
    }
}
#endif /* !WHOLE */

#if RANKED
/* -1 where an output that may not come is as large as one that may. */
INLINE ivec out_of_order(const vec *y, const int32_t *allowed) {
  vec least = splat(2), most = splat(-2); /* outputs are in [0, 1] */
  const ivec may = numbers(allowed);
  for (int k = 0; k < OUTPUTS; k++) {
    const ivec in = -((may >> k) & 1);
    least = blend(in & ~(y[k] >= least), y[k], least); /* NaN too: then nothing is in order */
    most = blend(~in & ~(y[k] <= most), y[k], most);
  }
  return ~(least > most);
}
#endif

/* The outputs, their errors, and what the networks learn from them. */
static void target_step(network *n, const sequence *s, long t, step_data *d, int masked, ivec live,
                        int learning, vec *seen) {
  vec y[OUTPUTS], e[OUTPUTS], d_h[UNITS];
  outputs(n, d, y);
  if (seen) memcpy(seen, y, sizeof y);
  const long at = EVERY_STEP ? t : 0;
  const int judged = EVERY_STEP && !JUDGE_END ? 1 : t == s->steps - 1;
  for (int k = 0; k < OUTPUTS; k++) {
    vec target;
#if TARGET_SYMBOLS
    target = one_where(s->target_symbol + at * LANES, k);
#else
    target = s->target[at * OUTPUTS + k];
#endif
    e[k] = target - y[k];
    if (masked) e[k] = blend(live, e[k], splat(0));
    if (judged) {
      const vec size = blend(e[k] < 0, -e[k], e[k]);
      /* NaN takes the place of any number and gives it up to none: such a network is wrong. */
      const ivec worse = ~(size <= n->worst) & (n->worst == n->worst);
      if (!RANKED) n->worst = blend(worse, size, n->worst);
      n->absolute += size;
      n->squared += e[k] * e[k];
    }
#if SLOPE && HEAD == LOGISTIC
    e[k] *= y[k] * (1 - y[k]);
#endif
  }
#if RANKED
  const ivec counted = masked ? live : ~(ivec){0};
  if (judged) n->worst = blend(out_of_order(y, s->allowed + t * LANES) & counted, splat(1), n->worst);
#endif
  if (!learning) return;
  learn_head(n, d, e, d_h);
#if WHOLE
  memcpy(n->tape[t].d_h, d_h, sizeof d_h);
#elif EXACT
  learn_exact(n, d_h);
#else
  learn_hidden(n, d, d_h);
#endif
}

/* ---- a sequence ---------------------------------------------------------------------- */

INLINE void clear(vec *v, long count) { memset(v, 0, count * sizeof(vec)); }

INLINE void add(vec *w, const vec *g, vec rate, long count) {
  for (long k = 0; k < count; k++) w[k] += rate * g[k];
}

/* Runs one sequence in every lane. seen: null, or [steps][OUTPUTS] for the outputs. */
static void run_sequence(network *n, const sequence *s, int learning, vec *seen) {
  step_data d;
  pending w;
  w.count = 0;
  for (int j = 0; j < BLOCK_STEPS; j++) w.y[j][ONE_AT] = splat(1);
  d.now = 0;
  for (int u = 0; u < UNITS; u++)
    for (int k = 0; k < NS; k++) d.state[0][u][k] = splat((real)START[k]);
  n->worst = n->squared = n->absolute = splat(0);
  if (learning) {
    clear(n->trace, TRACE_VECS);
    clear(n->ptrace, UNITS * NTP);
    if (SUMS) {
      clear(n->sum_weight, (long)SOURCES * ROWS);
      clear(n->sum_param, NP * UNITS);
      clear(n->sum_head, (long)HEAD_SOURCES * OUTPUTS);
    }
  }
  for (long t = 0; t < s->steps; t++) {
    const int masked = t < s->together, last = t == s->steps - 1;
    const ivec live = masked ? begun(s, t) : (ivec){0};
    d.y = w.y[w.count]; /* where remember() wants it */
    hidden(n, s, t, &d);
    if (masked)
      for (int u = 0; u < UNITS; u++)
        for (int k = 0; k < NS; k++) {
          vec *v = &d.state[!d.now][u][k];
          *v = blend(live, *v, splat((real)START[k]));
        }
#if WHOLE
    if (learning) record_step(n, t, &d);
#elif EXACT
    if (learning) advance(n, &d, masked, live);
#else
    if (learning && (EVERY_STEP || last)) flush(n, &w);
#endif
    if (EVERY_STEP || last || seen)
      target_step(n, s, t, &d, masked, live, learning && (EVERY_STEP || last),
                  seen ? seen + t * OUTPUTS : NULL);
#if !WHOLE && !EXACT
    if (learning && !last) {
      if (masked) remember(n, &d, &w, 1, live);
      else remember(n, &d, &w, 0, live);
      if (w.count == BLOCK_STEPS) flush(n, &w);
    }
#endif
    d.now = !d.now;
  }
#if WHOLE
  if (learning) sweep_back(n, s);
#endif
  if (learning && SUMS) {
    add(n->weight, n->sum_weight, n->rate, (long)SOURCES * ROWS);
    add(n->param, n->sum_param, n->rate, NP * UNITS);
    add(n->head, n->sum_head, n->rate, (long)HEAD_SOURCES * OUTPUTS);
  }
}
