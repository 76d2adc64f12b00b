/* Backpropagation through time, for a network whose rule is WHOLE. Included after errors.c. */

static void record_step(network *n, long t, const step_data *d) {
  record *r = n->tape + t;
  memcpy(r->y, d->y, sizeof r->y);
  memcpy(r->previous, d->state[d->now], sizeof r->previous);
  memcpy(r->next, d->state[!d->now], sizeof r->next);
  memcpy(r->kept, d->kept, sizeof r->kept);
  memset(r->d_h, 0, sizeof r->d_h);
}

/* d_next: -∂E/∂(states of step t), from the steps after t; on return of the step before. */
static void step_back(network *n, const sequence *s, long t, vec (*d_next)[NS]) {
  record *r = n->tape + t;
  vec d_acc[UNITS][NG], d_previous[UNITS][NS];
  step_data d;
  d.y = r->y;
#if SYMBOLS
  d.symbol = s->symbol + t * LANES;
  d.same = all_same(d.symbol);
#endif
  for (int u = 0; u < UNITS; u++) {
    vec p[NP + 1], d_p[NP + 1];
    for (int k = 0; k < NP; k++) p[k] = n->param[k * UNITS + u];
    d_next[u][0] += r->d_h[u];
    for (int k = 0; k < NS && t < s->together; k++) /* before its start a lane has constants */
      d_next[u][k] = blend(begun(s, t), d_next[u][k], splat(0));
    step_backward(r->kept[u], r->previous[u], r->next[u], p, d_next[u], d_acc[u], d_previous[u], d_p);
    for (int k = 0; k < NP; k++)
      change(n, n->param + k * UNITS + u, n->sum_param + k * UNITS + u, d_p[k]);
  }
  learn_rows(n, &d, d_acc, d_previous);
  memcpy(d_next, d_previous, sizeof d_previous);
  const vec *w = n->weight + FED_AT * ROWS;
  for (int k = 0; k < NF; k++)
    for (int u = 0; u < UNITS; u += SHARED_STATE[k] ? BLOCK : 1, w += ROWS)
      for (int a = 0; a < NG; a++)
        for (int v = 0; v < UNITS; v++) d_next[u][FEEDBACK[k]] += w[row_of(a, v)] * d_acc[v][a];
}

static void sweep_back(network *n, const sequence *s) {
  vec d_next[UNITS][NS];
  memset(d_next, 0, sizeof d_next);
  for (long t = s->steps - 1; t >= 0; t--) step_back(n, s, t, d_next);
}
