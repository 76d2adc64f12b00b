/* Temporal order (Hochreiter & Schmidhuber, 1997, experiments 6a and 6b).
 *
 * E, then symbols of {a, b, c, d} but for X or Y at some positions, then B; which of X and Y stood
 * where, in order, is the class. Symbols: E 0, B 1, a-d 2-5, X 6, Y 7. The class is the binary
 * number of the marks, the first mark its highest digit, Y counting 1.
 *
 * param: shortest length, longest length, then first and last position of each mark (E is at 0).
 * Expects MARKS.
 */
static long task_steps(const double *param) { return (long)param[1]; }

static void task_draw(const double *param, const source *r, sequence *s) {
  const int32_t least = (int32_t)param[0], most = (int32_t)param[1];
  const header h = draw_header(r);
  int32_t length[LANES];
  for (int l = 0; l < LANES; l++) length[l] = least + below(h.word[0][l], most - least + 1);
  set_lengths(s, length);
  draw_steps(r, s->steps, s->words);
  for (long t = 0; t < s->steps; t++) symbols_below(s->symbol + t * LANES, s->words[t], 4, 2);
  for (int l = 0; l < LANES; l++) {
    int32_t *symbol = s->symbol + (long)s->start[l] * LANES + l, class = 0;
    symbol[0] = 0;
    symbol[(long)(length[l] - 1) * LANES] = 1;
    for (int k = 0; k < MARKS; k++) {
      const int32_t from = (int32_t)param[2 + 2 * k], to = (int32_t)param[3 + 2 * k];
      const int32_t at = from + below(h.word[1 + 2 * k][l], to - from + 1);
      const int32_t y = below(h.word[2 + 2 * k][l], 2);
      symbol[(long)at * LANES] = 6 + y;
      class = 2 * class + y;
    }
    s->target_symbol[l] = class;
  }
}
