/* Cells whose step takes several passes over the units (a mean over units, a late product):
 * forward_phase_K() and backward_phase_K() are generated; see equations/phases.py.
 *
 *   kept [.., WIDTH*P]: accumulators, late products, their sources, values of functions; backward
 *        replaces the first NG + NLATE by their derivatives
 *   means [T, B, NMEANS], d_means [B, NMEANS]
 *   collected [B, NCOLLECTED*P]: derivatives by what earlier phases computed, as they gather;
 *        it begins with the accumulators and the late products, like `kept`
 *   packed_l, packed_lt [NLATE][P/LANES][H][LANES]: U of the late gates, and transposed
 */

typedef struct {
  long units, padded;
  const real *previous[NS], *keep[NS], *carry[NS], *param, *mask, *d_output, *d_record[NR + 1];
  real *state[NS], *kept, *means, *record[NR + 1], *collected, *d_means, *d_param;
} row_view;

/* lanes that hold a unit, of the vector that begins at unit `at` */
INLINE ivec living(long at, long units) {
  ivec m;
  for (int l = 0; l < LANES; l++) m[l] = at + l < units ? -1 : 0;
  return m;
}

INLINE real sum_of(vec v) {
  real s = 0;
  for (int l = 0; l < LANES; l++) s += v[l];
  return s;
}

/*@functions@*/

static row_view view_row(const job *j, const step_rows *s, long t, long i, real *d_param,
                         int backward) {
  const int64_t *n = j->n;
  const long padded = n[N_PADDED], row = s->row[i], cell = t * n[N_BATCH] + row;
  row_view r = {.units = n[N_UNITS], .padded = padded, .param = j->p[P_PARAM],
                .kept = kept_row(j, t, row), .d_param = d_param};
  r.mask = (const real *)j->p[P_MASK] + row * NF * padded;
  r.means = (real *)j->p[P_MEANS] + cell * NMEANS;
  for (int k = 0; k < NS; k++) {
    r.previous[k] = s->previous[k][i];
    r.state[k] = state_row(j, k, t, row);
    r.keep[k] = (const real *)j->p[P_KEEP + k] + cell * padded;
  }
  for (int k = 0; k < NR; k++) r.record[k] = (real *)j->p[P_RECORD + k] + cell * padded;
#if TRAINING
  if (!backward) return r;
  for (int k = 0; k < NS; k++) r.carry[k] = (const real *)j->p[P_CARRY + k] + row * padded;
  for (int k = 0; k < NR; k++)
    r.d_record[k] = j->p[P_D_RECORD + k] ? (const real *)j->p[P_D_RECORD + k] + cell * padded
                                         : NULL;
  r.d_output = j->p[P_D_OUTPUT] ? (const real *)j->p[P_D_OUTPUT] + cell * n[N_D_OUTPUT_ROW] : NULL;
  r.collected = (real *)j->p[P_COLLECTED] + row * NCOLLECTED * padded;
  r.d_means = (real *)j->p[P_D_MEANS] + row * NMEANS;
#endif
  return r;
}

static void forward_phases(const job *j, const step_rows *s, long t, operand *room) {
  const long units = j->n[N_UNITS], padded = j->n[N_PADDED], vectors = padded / LANES;
  static const int first[1] = {0};
  for (int phase = 0; phase < PHASES; phase++) {
    for (int q = 0; q < NLATE; q++) {
      if (LATE_LEVEL[q] != phase) continue;
      product late = {.segments = 1, .slots = first, .count = s->count, .width = padded,
                      .room = room};
      late.panel = (const weight *)j->p[P_PACKED_L] + q * padded * ENTRIES(units);
      for (long i = 0; i < s->count; i++) {
        late.in[i] = kept_row(j, t, s->row[i]) + (NG + NLATE + q) * padded;
        late.out[i] = kept_row(j, t, s->row[i]) + (NG + q) * padded;
        late.mask[i] = NULL;
      }
      run_product(&late, units, padded, 0, vectors);
    }
    for (long i = 0; i < s->count; i++) {
      const row_view r = view_row(j, s, t, i, NULL, 0);
      FORWARD_PHASE[phase](&r);
    }
  }
}

#if TRAINING
static void backward_phases(const job *j, const step_rows *s, long t, real *d_bias,
                            real *d_param, operand *room) {
  const uint8_t *cut_steps = j->p[P_CUT_STEPS];
  const long units = j->n[N_UNITS], padded = j->n[N_PADDED], vectors = padded / LANES;
  static const int first[1] = {0};
  for (long i = 0; i < s->count; i++)
    memset((real *)j->p[P_D_MEANS] + s->row[i] * NMEANS, 0, NMEANS * sizeof(real));
  for (int phase = PHASES - 1; phase >= 0; phase--) {
    for (long i = 0; i < s->count; i++) {
      const row_view r = view_row(j, s, t, i, d_param, 1);
      BACKWARD_PHASE[phase](&r);
    }
    for (int q = 0; q < NLATE; q++) {
      if (LATE_LEVEL[q] != phase) continue;
      product late = {.segments = 1, .slots = first, .width = padded, .room = room};
      late.panel = (const weight *)j->p[P_PACKED_LT] + q * padded * ENTRIES(units);
      for (long i = 0; i < s->count; i++) {
        real *collected = (real *)j->p[P_COLLECTED] + s->row[i] * NCOLLECTED * padded;
        real *out = collected + (NG + NLATE + q) * padded;
        if (CUT_LATE[q] && (!cut_steps || cut_steps[t * j->n[N_BATCH] + s->row[i]])) {
          memset(out, 0, padded * sizeof(real)); /* what it multiplied counts as a constant */
          continue;
        }
        late.in[late.count] = collected + (NG + q) * padded;
        late.mask[late.count] = NULL;
        late.out[late.count++] = out;
      }
      run_product(&late, units, padded, 0, vectors);
    }
  }
  for (long i = 0; i < s->count; i++) {
    const long row = s->row[i];
    const real *collected = (const real *)j->p[P_COLLECTED] + row * NCOLLECTED * padded;
    memcpy(kept_row(j, t, row), collected, (NG + NLATE) * padded * sizeof(real));
    for (long u = 0; u < NG * padded; u += LANES)
      store(d_bias + u, load(d_bias + u) + load(collected + u));
    for (int k = 0; k < NS; k++)
      memcpy((real *)j->p[P_CARRY + k] + row * padded, collected + COLLECTED_STATE[k] * padded,
             padded * sizeof(real));
  }
}
#endif
