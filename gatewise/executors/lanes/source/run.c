/* A sequence in every lane, and what the networks learn from it. Included after errors.c, and after
 * sweep.c where the rule is WHOLE. */

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
