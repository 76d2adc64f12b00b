/* Two long sequences (Hochreiter & Schmidhuber, 1997, experiments 2a and 2b).
 *
 * (y, a1 … a_{p-1}, y) or (x, a1 … a_{p-1}, x), each with probability 1/2: predict every next
 * symbol. With MIDDLE_RANDOM the p-1 symbols between are drawn from a1 … a_{p-1}. Symbols:
 * a1 … a_{p-1} are 0 … p-2, x p-1, y p.
 *
 * param: p.
 */
static long task_steps(const double *param) { return (long)param[0]; }

static void task_draw(const double *param, const source *r, sequence *s) {
  const int32_t p = (int32_t)param[0];
  const header h = draw_header(r);
  int32_t length[LANES];
  for (int l = 0; l < LANES; l++) length[l] = p;
  set_lengths(s, length);
  if (MIDDLE_RANDOM) draw_steps(r, p, s->words);
  for (int32_t t = 0; t < p; t++)
    for (int l = 0; l < LANES; l++) {
      const int32_t ends = p - 1 + below(h.word[0][l], 2);
      const int32_t here = MIDDLE_RANDOM ? below(s->words[t][l], p - 1) : t - 1;
      const int32_t next = MIDDLE_RANDOM && t < p - 1 ? below(s->words[t + 1][l], p - 1) : t;
      s->symbol[t * LANES + l] = t == 0 ? ends : here;
      s->target_symbol[t * LANES + l] = t == p - 1 ? ends : next;
    }
}
