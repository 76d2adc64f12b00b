/* Adding (Hochreiter & Schmidhuber, 1997, experiment 4).
 *
 * Pairs (value uniform in [-1, 1), marker). One of the first ten pairs is marked 1, then another
 * of the first T/2 - 1; the first and the last pair's marker is -1, all others 0. If the first pair
 * is the one marked, its value is 0. Length uniform in T … T + T/10. Target: 0.5 + (X1 + X2) / 4.
 *
 * param: T.
 */
static long task_steps(const double *param) { return (long)param[0] + (long)param[0] / 10; }

static void task_draw(const double *param, const source *r, sequence *s) {
  const int32_t T = (int32_t)param[0], half = T / 2 - 1;
  const header h = draw_header(r);
  int32_t length[LANES];
  for (int l = 0; l < LANES; l++) length[l] = T + below(h.word[0][l], T / 10 + 1);
  set_lengths(s, length);
  draw_steps(r, s->steps, s->words);
  for (long t = 0; t < s->steps; t++) {
    s->x[2 * t] = unit(s->words[t]) * 2 - 1;
    s->x[2 * t + 1] = splat(0);
  }
  for (int l = 0; l < LANES; l++) {
    const int32_t first = below(h.word[1][l], 10);
    /* the unmarked ones among the first `half` pairs, counted past the marked one */
    const int32_t left = half - (first < half);
    int32_t second = below(h.word[2][l], left);
    second += second >= first;
    vec *x = s->x + 2 * (long)s->start[l];
    x[1][l] = -1;
    x[2 * (length[l] - 1) + 1][l] = -1;
    if (first == 0 || second == 0) x[0][l] = 0;
    x[2 * first + 1][l] = 1;
    x[2 * second + 1][l] = 1;
    s->target[0][l] = (real)0.5 + (x[2 * first][l] + x[2 * second][l]) / 4;
  }
}
