/* Forward: a tile's sums stay in registers until the equations have run on them. */

/* acc = start, each row's [NG][P] */
INLINE void start_sums(const real *const *start, long padded, const int mr, long vector,
                       const int nu, vec *acc) {
#pragma GCC unroll 24
  for (int a = 0; a < mr * nu * NG; a++)
    acc[a] = load(start[a / (nu * NG)] + a % NG * padded + (vector + a / NG % nu) * LANES);
}

/* acc += W x */
INLINE void add_input(const job *j, const operand *const *rows, const int mr, long vector,
                      const int nu, vec *acc) {
  const long inputs = j->n[N_INPUTS], step = X_PANEL(inputs);
  multiply(acc, mr, nu, NGX, NG, X_GATE, rows, (const weight *)j->p[P_PACKED_X] + vector * step,
           step, GROUPS(inputs));
}

INLINE void forward_tile(const job *j, const step_rows *s, long t, long i0, const int mr,
                         long vector, const int nu) {
  const int64_t *n = j->n;
  const long padded = n[N_PADDED], units = n[N_UNITS];
  const long at = vector * LANES;

  const int taken = mr < FEW_ROWS && s->ahead[0];
  const operand *rows[8];
  const real *start[8];
  vec acc[TILE];
#pragma GCC unroll 24
  for (int r = 0; r < mr; r++) {
    rows[r] = s->seen[0][i0 + r];
    start[r] = taken ? s->ahead[i0 + r] : j->p[P_BIAS];
  }
  start_sums(start, padded, mr, vector, nu, acc);
  if (!taken) add_input(j, rows, mr, vector, nu, acc);
  const long state_step = H_PANEL(units), h_step = NF * state_step;
  const weight *packed_h = (const weight *)j->p[P_PACKED_H] + vector * h_step;
  for (int f = 0; f < NF; f++, packed_h += state_step) {
#pragma GCC unroll 24
    for (int r = 0; r < mr; r++) rows[r] = s->seen[1 + f][i0 + r];
    multiply(acc, mr, nu, NGH, NG, H_GATE, rows, packed_h, h_step, GROUPS(units));
  }
  vec sums[TILE]; /* in memory, so that the loop below need not be unrolled */
#pragma GCC unroll 24
  for (int k = 0; k < mr * nu * NG; k++) sums[k] = acc[k];

  for (int r = 0; r < mr; r++) {
    const long i = i0 + r, row = s->row[i];
    for (int u = 0; u < nu; u++) {
      const long o = at + u * LANES;
#if PHASES /* the equations need every unit's accumulators: they follow in phases.c */
      for (int g = 0; g < NG; g++)
        store(kept_row(j, t, row) + g * padded + o, sums[(r * nu + u) * NG + g]);
#else
      const real *param = j->p[P_PARAM];
      const long cell = (t * n[N_BATCH] + row) * padded + o;
      vec a[NG], previous[NS], keep[NS], p[NP + 1], next[NS], kept[NSAVE + 1], record[NR + 1];
      for (int g = 0; g < NG; g++) a[g] = sums[(r * nu + u) * NG + g];
      for (int k = 0; k < NS; k++) {
        previous[k] = load(s->previous[k][i] + o);
        keep[k] = ZONEOUT[k] ? load((const real *)j->p[P_KEEP + k] + cell)
                             : splat(0);
      }
      for (int k = 0; k < NP; k++) p[k] = load(param + k * padded + o);
      step_forward(a, previous, keep, p, next, kept, record);
      for (int k = 0; k < NS; k++)
        store(state_row(j, k, t, row) + o, next[k]);
#if TRAINING
      for (int k = 0; k < NSAVE; k++)
        store((real *)kept_row(j, t, row) + k * padded + o, kept[k]);
#endif
      for (int k = 0; k < NR; k++)
        store((real *)j->p[P_RECORD + k] + cell, record[k]);
#endif
    }
  }
}

APART void forward_tall(const job *j, const step_rows *s, long t, long i0, long mr, long vector) {
#define CALL(m) forward_tile(j, s, t, i0, m, vector, TALL_UNITS)
  switch (mr) { EACH_ROW_COUNT(TALL_ROWS, CALL) }
#undef CALL
}

#if TALL_UNITS > 1
APART void forward_narrow(const job *j, const step_rows *s, long t, long i0, long mr,
                           long vector) {
#define CALL(m) forward_tile(j, s, t, i0, m, vector, 1)
  switch (mr) { EACH_ROW_COUNT(TALL_ROWS, CALL) }
#undef CALL
}
#else
#define forward_narrow forward_tall
#endif

APART void forward_flat(const job *j, const step_rows *s, long t, long i0, long vector) {
  forward_tile(j, s, t, i0, 1, vector, FLAT_UNITS);
}

static void forward_rows(const job *j, const step_rows *s, long t, long vector, int tall) {
  for (long i0 = 0, i1; i0 < s->count; i0 = i1) {
    i1 = i0 + tile_rows(s->count - i0, TALL_ROWS);
    if (tall) forward_tall(j, s, t, i0, i1 - i0, vector);
    else forward_narrow(j, s, t, i0, i1 - i0, vector);
  }
}

/* Vectors of units [from, to): as many wide tiles as there are, then narrower ones. Every second step
 * begins with the last tile, because the weights it read last are those still in the second cache. */
static void forward_step(const job *j, const step_rows *s, long t, long from, long to) {
  const long flat = s->count == 1 ? (to - from) / FLAT_UNITS : 0;
  const long after_flat = from + flat * FLAT_UNITS, tall = (to - after_flat) / TALL_UNITS;
  const long after_tall = after_flat + tall * TALL_UNITS;
  const long tiles = flat + tall + to - after_tall, back = (t + j->n[N_REVERSE]) % 2;
  for (long i = 0; i < tiles; i++) {
    const long k = back ? tiles - 1 - i : i;
    if (k < flat) forward_flat(j, s, t, 0, from + k * FLAT_UNITS);
    else if (k < flat + tall) forward_rows(j, s, t, after_flat + (k - flat) * TALL_UNITS, 1);
    else forward_rows(j, s, t, after_tall + k - flat - tall, 0);
  }
}

#if PHASES
/*@phases@*/
#endif

/* Sums of one vector of units for `mr` steps of one row, to [steps][NG][P]. */
INLINE void ahead_tile(const job *j, const operand *const *rows, const int mr, long vector,
                       real *to, long to_step) {
  const real *start[8];
  vec acc[TILE];
#pragma GCC unroll 24
  for (int r = 0; r < mr; r++) start[r] = j->p[P_BIAS];
  start_sums(start, j->n[N_PADDED], mr, vector, 1, acc);
  add_input(j, rows, mr, vector, 1, acc);
#pragma GCC unroll 24
  for (int a = 0; a < mr * NG; a++)
    store(to + a / NG * to_step + a % NG * j->n[N_PADDED] + vector * LANES, acc[a]);
}

/* Steps k to k + count (as they run) of rows [begin, end), to [AHEAD][rows][NG][P]; `room` is for
 * TALL_ROWS rows of the input. */
APART void take_ahead(const job *j, const part *w, long k, long count, long begin, long end,
                       real *to, operand *room) {
  const int64_t *n = j->n;
  const long inputs = n[N_INPUTS], row_size = NG * n[N_PADDED], step_size = (end - begin) * row_size;
  for (long row = begin; row < end; row++, to += row_size)
    for (long i = 0, mr; i < count; i += mr) {
      const operand *rows[8];
      mr = tile_rows(count - i, TALL_ROWS);
      for (long r = 0; r < mr; r++) {
        const long t = n[N_REVERSE] ? n[N_STEPS] - 1 - k - i - r : k + i + r;
        const real *x = (const real *)j->p[P_X] + t * n[N_X_STEP] + row * n[N_X_ROW];
        rows[r] = as_operands(x, NULL, inputs, room + r * ROOM(inputs));
      }
      for (long v = w->from; v < w->to; v++) {
#define CALL(m) ahead_tile(j, rows, m, v, to + i * step_size, step_size)
        switch (mr) { EACH_ROW_COUNT(TALL_ROWS, CALL) }
#undef CALL
      }
    }
}

/* What is handed out is zero at steps that do not exist. */
static void clear_missing(const job *j, const part *w, long t, long begin, long end) {
  const int64_t *n = j->n, *lengths = j->p[P_LENGTHS];
  const long first = w->from * LANES, size = (w->to - w->from) * LANES * sizeof(real);
  for (long row = begin; lengths && row < end; row++) {
    if (t < lengths[row]) continue;
    memset(state_row(j, 0, t, row) + first, 0, size);
    for (int k = 0; k < NR; k++)
      memset((real *)j->p[P_RECORD + k] + (t * n[N_BATCH] + row) * n[N_PADDED] + first, 0, size);
  }
}

static void forward_sequence(const job *j, part *w, long begin, long end, operand *room) {
  const int64_t *n = j->n;
  const long steps = n[N_STEPS], padded = n[N_PADDED], row_size = NG * padded;
  const int few = end - begin < FEW_ROWS && steps > 1;
  real *ahead = few ? malloc(AHEAD * (end - begin) * row_size * sizeof(real)) : NULL;
  operand *ahead_room = few ? malloc((TALL_ROWS * ROOM(n[N_INPUTS]) + 1) * sizeof(operand)) : NULL;
  step_rows s = {.count = 0};
  for (long k = 0; k < steps; k++) {
    const long t = n[N_REVERSE] ? steps - 1 - k : k;
    find_rows(j, t, begin, end, &s);
    see_rows(j, &s, room);
    if (ahead && k % AHEAD == 0)
      take_ahead(j, w, k, steps - k < AHEAD ? steps - k : AHEAD, begin, end, ahead, ahead_room);
    for (long i = 0; ahead && i < s.count; i++)
      s.ahead[i] = ahead + (k % AHEAD * (end - begin) + s.row[i] - begin) * row_size;
    clear_missing(j, w, t, begin, end);
    if (s.count) forward_step(j, &s, t, w->from, w->to);
#if PHASES
    if (s.count) forward_phases(j, &s, t, room);
#endif
    meet(j, w);
  }
  free(ahead);
  free(ahead_room);
  if (w->from > 0 || !j->p[P_LAST]) return; /* one thread copies for all */
  const int64_t *lengths = j->p[P_LENGTHS];
  for (long row = begin; row < end; row++) {
    const long length = lengths ? lengths[row] : steps;
    const long t = n[N_REVERSE] ? 0 : length - 1;
    for (int k = 0; k < NS; k++) {
      const real *from = length == 0 ? (const real *)j->p[P_FIRST + k] + row * padded
                                     : state_row(j, k, t, row);
      memcpy((real *)j->p[P_LAST + k] + row * padded, from, padded * sizeof(real));
    }
  }
}

/* Room for the operands of a part's rows, `each` a row; null where rows are read as they lie. */
static operand *operand_room(const job *j, const part *w, long each) {
  const long rows = w->end - w->begin < MAX_ROWS ? w->end - w->begin : MAX_ROWS;
  return HELD == FULL && !j->p[P_MASK] ? NULL : malloc((rows * each + 1) * sizeof(operand));
}

static void forward_task(void *context, long id) {
  const job *j = context;
  part w = share(j, id);
  const long inputs = j->n[N_INPUTS], units = j->n[N_UNITS];
  operand *room = operand_room(j, &w, SEEN_ROOM(inputs, units) + NLATE * ROOM(units));
  for (long row = w.begin; row < w.end; row += MAX_ROWS)
    forward_sequence(j, &w, row, row + MAX_ROWS < w.end ? row + MAX_ROWS : w.end, room);
  free(room);
}

void gw_forward(const int64_t *n, void *const *p, parallel_fn parallel) {
  launch(forward_task, n, p, parallel);
}
