/* Sequences of symbols from a list: training picks one of the first M at random; a test runs them
 * all in turn.
 *
 * param: M, number of sequences, longest, then for every sequence where it begins, then the
 * sequences: its number of steps, and for each step its symbol, the target and what is allowed.
 */
static long task_steps(const double *param) { return (long)param[2]; }

static void task_draw(const double *param, const source *r, sequence *s) {
  const header h = draw_header(r);
  const double *listed[LANES];
  int32_t length[LANES];
  for (int l = 0; l < LANES; l++) {
    const uint32_t which = r->purpose == TRAINING ? (uint32_t)below(h.word[0][l], (int32_t)param[0])
                                                  : r->number[l] % (uint32_t)param[1];
    listed[l] = param + (long)param[3 + which];
    length[l] = (int32_t)*listed[l]++;
  }
  set_lengths(s, length);
  for (int l = 0; l < LANES; l++)
    for (long t = 0; t < s->steps; t++) {
      const long from = t - s->start[l], at = t * LANES + l;
      s->symbol[at] = from < 0 ? 0 : (int32_t)listed[l][3 * from];
      s->target_symbol[at] = from < 0 ? 0 : (int32_t)listed[l][3 * from + 1];
      s->allowed[at] = from < 0 ? 0 : (int32_t)listed[l][3 * from + 2];
    }
}
