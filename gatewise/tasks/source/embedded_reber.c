/* Embedded Reber strings (Hochreiter & Schmidhuber, 1997, experiment 1).
 *
 * B, then T or P, then a whole Reber string, then the same T or P, then E; every edge that a
 * state of the grammar has is taken with the same probability. Each symbol but the last is an input,
 * the next symbol is its target. Symbols: B T P S X V E, 0 … 6.
 *
 * param: none.
 */
#define MOST 120 /* longer strings have a probability below 2^-32: there, the way out is taken */

typedef struct { int32_t symbol, next; } edge;

/* The grammar: two edges per state (the same one twice where there is no choice); the second is
 * the shorter way to the end. State 0 is before B, 7 after E. */
enum { B, T, P, S, X, V, E };
static const edge GRAMMAR[7][2] = {{{B, 1}, {B, 1}}, {{T, 2}, {P, 3}}, {{S, 2}, {X, 4}},
                                   {{T, 3}, {V, 5}}, {{X, 3}, {S, 6}}, {{P, 4}, {V, 6}},
                                   {{E, 7}, {E, 7}}};

static long task_steps(const double *param) { return MOST; }

/* symbol [MOST + 1], allowed [MOST]: what may follow each symbol. Returns the number of symbols. */
static int draw_string(const header *h, int l, int32_t *symbol, int32_t *allowed) {
  const int32_t side = h->word[0][l] & 1 ? P : T;
  int n = 0, state = 0;
  symbol[n] = B, allowed[n++] = 1 << T | 1 << P;
  symbol[n] = side, allowed[n++] = 1 << B;
  for (int draw = 1; state < 7; draw++) {
    const int out = n > MOST - 8 || draw >= 32 * 4 * HEADER || (h->word[draw / 32][l] >> draw % 32 & 1);
    const edge taken = GRAMMAR[state][out];
    state = taken.next;
    symbol[n] = taken.symbol;
    allowed[n++] = state == 7 ? 1 << side : 1 << GRAMMAR[state][0].symbol | 1 << GRAMMAR[state][1].symbol;
  }
  symbol[n] = side, allowed[n++] = 1 << E;
  symbol[n++] = E;
  return n;
}

static void task_draw(const double *param, const source *r, sequence *s) {
  const header h = draw_header(r);
  int32_t symbol[LANES][MOST + 1], allowed[LANES][MOST + 1], length[LANES];
  for (int l = 0; l < LANES; l++) length[l] = draw_string(&h, l, symbol[l], allowed[l]) - 1;
  set_lengths(s, length);
  for (int l = 0; l < LANES; l++)
    for (long t = 0; t < s->steps; t++) {
      const long from = t - s->start[l], at = t * LANES + l;
      s->symbol[at] = from < 0 ? B : symbol[l][from];
      s->target_symbol[at] = from < 0 ? B : symbol[l][from + 1];
      s->allowed[at] = from < 0 ? 0 : allowed[l][from];
    }
}
