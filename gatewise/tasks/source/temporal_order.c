/* Temporal order (Hochreiter & Schmidhuber, 1997, experiments 6a and 6b).
 *
 * E, then symbols of {a, b, c, d} but for X or Y at some positions, then B; which of X and Y stood
 * where, in order, is the class. Symbols: E 0, B 1, a-d 2-5, X 6, Y 7. The class is the binary
 * number of the marks, the first mark its highest digit, Y counting 1.
 *
 * With UNMARKED one sequence in 2^MARKS + 1 has no marks, and that is one class more. With NOISE the
 * inputs are not symbols but 8 numbers, 1 at the symbol's number, plus normal deviates.
 *
 * param: shortest length, longest length, the deviates' standard deviation, then first and last
 * position of each mark (E is at 0). Expects MARKS, UNMARKED, NOISE.
 */
#if NOISE
#define SYMBOL(t, l) s->words[t][l] /* in place of the word it comes from */
#define SYMBOLS_AT(t) (int32_t *)(s->words + (t))
#define NOISE_BLOCKS (1u << 30)     /* of random words, beyond those of the symbols */

static void add_noise(const source *r, real deviation, sequence *s) {
  for (long t = 0; t < s->steps; t++) {
    vec *x = s->x + 8 * t;
    for (uint32_t half = 0; half < 2; half++) {
      uvec word[4];
      const uint32_t block = NOISE_BLOCKS + 2 * (uint32_t)(s->steps - 1 - t) + half;
      draw(r, (uvec){0} + block, word);
      normal_pair(word[0], word[1], x + 4 * half, x + 4 * half + 1);
      normal_pair(word[2], word[3], x + 4 * half + 2, x + 4 * half + 3);
    }
    for (int k = 0; k < 8; k++) x[k] *= deviation;
    for (int l = 0; l < LANES; l++) x[s->words[t][l]][l] += 1;
  }
}
#else
#define SYMBOL(t, l) s->symbol[(t) * LANES + (l)]
#define SYMBOLS_AT(t) (s->symbol + (t) * LANES)
#endif

static long task_steps(const double *param) { return (long)param[1]; }

static void task_draw(const double *param, const source *r, sequence *s) {
  const int32_t least = (int32_t)param[0], most = (int32_t)param[1];
  const header h = draw_header(r);
  int32_t length[LANES];
  for (int l = 0; l < LANES; l++) length[l] = least + below(h.word[0][l], most - least + 1);
  set_lengths(s, length);
  draw_steps(r, s->steps, s->words);
  for (long t = 0; t < s->steps; t++) symbols_below(SYMBOLS_AT(t), s->words[t], 4, 2);
  for (int l = 0; l < LANES; l++) {
    const long begin = s->start[l];
    SYMBOL(begin, l) = 0;
    SYMBOL(begin + length[l] - 1, l) = 1;
    const int unmarked = UNMARKED && below(h.word[2 * MARKS + 1][l], (1 << MARKS) + 1) == 0;
    int32_t class = unmarked ? 1 << MARKS : 0;
    for (int k = 0; k < MARKS && !unmarked; k++) {
      const int32_t from = (int32_t)param[3 + 2 * k], to = (int32_t)param[4 + 2 * k];
      const int32_t at = from + below(h.word[1 + 2 * k][l], to - from + 1);
      const int32_t y = below(h.word[2 + 2 * k][l], 2);
      SYMBOL(begin + at, l) = 6 + y;
      class = 2 * class + y;
    }
    s->target_symbol[l] = class;
  }
#if NOISE
  add_noise(r, (real)param[2], s);
#endif
}
