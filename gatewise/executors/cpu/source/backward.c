/* Backward: the sweep, and the gradients of the weights. */

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
      next[k] = load(state_row(j, k, t, row) + at);
      keep[k] = ZONEOUT[k] ? load((const real *)j->p[P_KEEP + k] + cell) : splat(0);
      d_next[k] = load((const real *)j->p[P_CARRY + k] + row * padded + at);
    }
    if (d_output) d_next[0] += load(d_output + (t * n[N_BATCH] + row) * n[N_D_OUTPUT_ROW] + at);
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
    vec d[NG > 4 ? NG : 4], v[8];
#pragma GCC unroll 24
    for (int k = 0; HOLD_ROWS(nk, width) && k < nk; k++) v[k] = splat(seen[k]);
#pragma GCC unroll 24
    for (int a = 0; a < width; a++) {
      d[a] = load(panel + a * LANES);
      if (HOLD_ROWS(nk, width)) IN_REGISTER(d[a]);
#pragma GCC unroll 24
      for (int k = 0; HOLD_ROWS(nk, width) && k < nk; k++) acc[k * width + a] += v[k] * d[a];
    }
#pragma GCC unroll 24
    for (int k = 0; !HOLD_ROWS(nk, width) && k < nk; k++) {
      const vec one = splat(seen[k]);
#pragma GCC unroll 24
      for (int a = 0; a < width; a++) acc[k * width + a] += one * d[a];
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

/* Steps that do not exist have no derivatives. */
static void clear_derivatives(const job *j, const part *w, long t, long begin, long end) {
  const int64_t *n = j->n, *lengths = j->p[P_LENGTHS];
  for (long row = begin; lengths && row < end; row++) {
    if (t < lengths[row]) continue;
    if (NLATE) /* the gradients of late products are taken of all steps at once */
      memset(kept_row(j, t, row), 0, WIDTH * n[N_PADDED] * sizeof(real));
    if (j->p[P_D_INPUT] && w->from == 0)
      memset((real *)j->p[P_D_INPUT] + (t * n[N_BATCH] + row) * n[N_INPUTS], 0,
             n[N_INPUTS] * sizeof(real));
  }
}

static void backward_sequence(const job *j, part *w, long begin, long end, sample_list *samples,
                              operand *room) {
  const int64_t *n = j->n;
  const long steps = n[N_STEPS], padded = n[N_PADDED];
  const long set = j->arrived ? 0 : w->id;
  real *d_bias = (real *)j->p[P_D_BIAS] + set * NG * padded;
  real *d_param = (real *)j->p[P_D_PARAM] + set * NP * padded;
  const long first = w->from * LANES, size = (w->to - w->from) * LANES * sizeof(real);
  step_rows s;
  for (long k = 0; k < steps; k++) {
    const long t = n[N_REVERSE] ? k : steps - 1 - k;
    find_rows(j, t, begin, end, &s);
    clear_derivatives(j, w, t, begin, end);
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
