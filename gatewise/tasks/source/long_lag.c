/* Very long time lags with distractors (Hochreiter & Schmidhuber, 1997, experiment 2c).
 *
 * b, x or y, q distractors, then each further symbol is a distractor with probability 0.9 or the
 * trigger e, which ends the sequence. Target: which of x (0) and y (1) it was. Symbols: the p
 * distractors 0 … p-1, x p, y p+1, b p+2, e p+3.
 *
 * param: q, p.
 */
#define MOST_MORE 211 /* more distractors than this have a probability below 2^-32 */

static long task_steps(const double *param) { return (long)param[0] + 3 + MOST_MORE; }

static void task_draw(const double *param, const source *r, sequence *s) {
  const int32_t q = (int32_t)param[0], p = (int32_t)param[1];
  const header h = draw_header(r);
  int32_t length[LANES];
  for (int l = 0; l < LANES; l++) {
    const double u = (h.word[0][l] + 1.0) / 4294967296.0; /* (0, 1] */
    length[l] = q + 3 + (int32_t)(log(u) / log(0.9));
  }
  set_lengths(s, length);
  draw_steps(r, s->steps, s->words);
  for (long t = 0; t < s->steps; t++) symbols_below(s->symbol + t * LANES, s->words[t], p, 0);
  for (int l = 0; l < LANES; l++) {
    int32_t *symbol = s->symbol + (long)s->start[l] * LANES + l;
    const int32_t y = below(h.word[1][l], 2);
    symbol[0] = p + 2;
    symbol[LANES] = p + y;
    symbol[(long)(length[l] - 1) * LANES] = p + 3;
    s->target_symbol[l] = y;
  }
}
