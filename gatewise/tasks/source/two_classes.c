/* Two classes and noise on one line (Hochreiter & Schmidhuber, 1997, experiments 3a, 3b and 3c).
 *
 * The first N elements are +1 (class 1) or -1 (class 2), all others normal deviates of variance
 * 0.2. Length uniform in T … T + T/10. The target at the end is 1 or 0. Expects
 *   NOISY_INFORMATION (3b): noise of the same variance on the first N elements too;
 *   NOISY_TARGETS (3c): targets are 0.2 (class 1) and 0.8 (class 2), in training plus a normal
 *   deviate of variance 0.1; tests compare with the target that has no noise.
 *
 * param: T, N.
 */
static long task_steps(const double *param) { return (long)param[0] + (long)param[0] / 10; }

static void task_draw(const double *param, const source *r, sequence *s) {
  const int32_t T = (int32_t)param[0], N = (int32_t)param[1];
  const header h = draw_header(r);
  int32_t length[LANES];
  for (int l = 0; l < LANES; l++) length[l] = T + below(h.word[0][l], T / 10 + 1);
  set_lengths(s, length);
  draw_normals(r, s->steps, s->x);
  for (long t = 0; t < s->steps; t++) s->x[t] *= (real)0.44721360; /* √0.2 */
  vec noise, other;
  normal_pair(h.word[2], h.word[3], &noise, &other);
  for (int l = 0; l < LANES; l++) {
    const int one = h.word[1][l] >> 31;
    vec *x = s->x + s->start[l];
    for (int t = 0; t < N; t++) x[t][l] = (NOISY_INFORMATION ? x[t][l] : 0) + (one ? 1 : -1);
    s->target[0][l] = NOISY_TARGETS ? (one ? (real)0.2 : (real)0.8) : one;
    if (NOISY_TARGETS && r->purpose == TRAINING) s->target[0][l] += (real)0.31622777 * noise[l];
  }
}
