/* Two long sequences (Hochreiter & Schmidhuber, 1997, experiments 2a and 2b).
 *
 * (y, a1 … a_{p-1}, y) or (x, a1 … a_{p-1}, x), each with probability 1/2: predict every next
 * symbol. With MIDDLE_RANDOM the p-1 symbols between are drawn from a1 … a_{p-1}; with END_ALONE
 * the last symbol alone is asked for. Symbols: a1 … a_{p-1} are 0 … p-2, x p-1, y p.
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
  symbols_below(s->symbol, h.word[0], 2, p - 1);
  for (int32_t t = 1; t < p; t++)
    if (MIDDLE_RANDOM) symbols_below(s->symbol + t * LANES, s->words[t], p - 1, 0);
    else for (int l = 0; l < LANES; l++) s->symbol[t * LANES + l] = t - 1;
  const int32_t before = END_ALONE ? 0 : p - 1; /* targets before the last one */
  memcpy(s->target_symbol, s->symbol + LANES, before * LANES * sizeof *s->symbol);
  memcpy(s->target_symbol + before * LANES, s->symbol, LANES * sizeof *s->symbol);
}
