/* What comes of an output's error: changes of the head, of the rows and of the parameters. Included
 * after traces.c. */

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

#if !WHOLE
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
