/* Adding and multiplication (Hochreiter & Schmidhuber, 1997, experiments 4 and 5).
 *
 * Pairs (value, marker). One of the first ten pairs is marked 1, then another of the first
 * T/2 - 1; the first and the last pair's marker is -1, all others 0. Length uniform in
 * T … T + T/10. Expects MULTIPLY:
 *   0: values uniform in [-1, 1); target 0.5 + (X1 + X2) / 4; a marked first pair has value 0;
 *   1: values uniform in [0, 1);  target X1 · X2;             a marked first pair has value 1.
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
    s->x[2 * t] = MULTIPLY ? unit(s->words[t]) : unit(s->words[t]) * 2 - 1;
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
    if (first == 0 || second == 0) x[0][l] = MULTIPLY;
    x[2 * first + 1][l] = 1;
    x[2 * second + 1][l] = 1;
    const real a = x[2 * first][l], b = x[2 * second][l];
    s->target[0][l] = MULTIPLY ? a * b : (real)0.5 + (a + b) / 4;
  }
}
