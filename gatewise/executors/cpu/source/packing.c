/* Weights into the kernel's order, their gradients out of it. */

/* From torch's layout (gates stacked: [gates*H, columns]) to panels. Arguments by position. */
enum { K_THREADS, K_INPUTS, K_UNITS, K_PADDED };
enum { W_IH, W_HH, B_IH, B_HH, W_PACKED_X, W_PACKED_H, W_PACKED_T, W_BIAS, W_PACKED_L,
       W_PACKED_LT, W_PACKED_XT };

/* What a panel begins with, for one lane of one of `ng` gates; the lane's scale. */
static real pack_head(const real *from, long step, long count, int ng, weight *to) {
  const real scale = scale_of(from, step, count);
#if HELD == INT8
  int32_t sum = 0;
  for (long k = 0; k < count; k++) sum += small_integer(from[k * step], scale);
  memcpy(to, &scale, sizeof scale);
  memcpy(to + ng * LANES, &sum, sizeof sum);
#endif
  return scale;
}

/* Of LANES rows of each gate, the first `columns` numbers: [ENTRIES(columns)][count][LANES]. */
static void pack_panel(const real *w, long row_step, long columns, long units, long at,
                       const int *accs, int count, weight *to) {
  for (int g = 0; g < count; g++) {
    real scale[LANES];
    for (int l = 0; l < LANES; l++) {
      const real *from = w + (GATE_OF[accs[g]] * units + at + l) * row_step;
      scale[l] = pack_head(from, 1, at + l < units ? columns : 0, count, to + g * LANES + l);
    }
    for (long k0 = 0; k0 < columns; k0 += 16) { /* 16 columns of LANES rows stay in L1 */
      const long k1 = k0 + 16 < columns ? k0 + 16 : columns;
      for (int l = 0; l < LANES; l++) {
        const real *from = w + (GATE_OF[accs[g]] * units + at + l) * row_step;
        for (long k = k0; k < k1; k += GROUP)
          to[((HEAD + k / GROUP) * count + g) * LANES + l] =
              at + l < units ? make_weight(from + k, 1, columns - k, scale[l]) : 0;
      }
    }
  }
}

/* LANES columns of each gate's rows, [count][GROUPS(units)][LANES]. */
static void pack_transposed(const real *w, long row, long columns, long at, long units,
                            const int *accs, int count, weight *to) {
  for (int g = 0; g < count; g++)
    for (long k = 0; k < units; k += GROUP, to += LANES) {
      const real *from = w + (GATE_OF[accs[g]] * units + k) * row + at;
      for (int l = 0; l < LANES; l++)
        to[l] = at + l < columns ? make_weight(from + l, row, units - k, 1) : 0;
    }
}

static void pack_task(void *context, long id) {
  const job *j = context;
  const int64_t *n = j->n;
  void *const *p = j->p;
  const long units = n[K_UNITS], padded = n[K_PADDED], inputs = n[K_INPUTS];
  const long vectors = padded / LANES, fed = NF * units;
  const real *b_ih = p[B_IH], *b_hh = p[B_HH], *w_hh = p[W_HH];
  for (long v = vectors * id / n[K_THREADS]; v < vectors * (id + 1) / n[K_THREADS]; v++) {
    const long at = v * LANES;
    pack_panel(p[W_IH], inputs, inputs, units, at, X_GATE, NGX,
               (weight *)p[W_PACKED_X] + v * X_PANEL(inputs));
    for (int f = 0; f < NF; f++)
      pack_panel(w_hh + f * units, fed, units, units, at, H_GATE, NGH,
                 (weight *)p[W_PACKED_H] + (v * NF + f) * H_PANEL(units));
    for (int a = 0; a < NG; a++)
      for (int l = 0; l < LANES; l++) {
        const long u = at + l, from = GATE_OF[a] * units + u;
        real b = 0;
        if (u < units && FROM_X[a] && b_ih) b += b_ih[from];
        if (u < units && BIAS_HH[a] && b_hh) b += b_hh[from];
        ((real *)p[W_BIAS])[a * padded + u] = b;
      }
#if PHASES
    for (int q = 0; q < NLATE; q++) {
      const real *from = w_hh + LATE_GATE[q] * units * units;
      const long to = (q * vectors + v) * ENTRIES(units) * LANES;
      weight *late = (weight *)p[W_PACKED_L] + to, *transposed = (weight *)p[W_PACKED_LT] + to;
      for (int l = 0; l < LANES; l++) {
        const int there = at + l < units;
        const real *row = from + (at + l) * units, *column = from + at + l;
        const real scale = pack_head(row, 1, there ? units : 0, 1, late + l);
        for (long k = 0; k < units; k += GROUP) {
          const long i = (HEAD + k / GROUP) * LANES + l, left = units - k;
          late[i] = there ? make_weight(row + k, 1, left, scale) : 0;
          if (TRAINING) transposed[i] = there ? make_weight(column + k * units, units, left, 1) : 0;
        }
      }
    }
#endif
    if (p[W_PACKED_T])
      for (int f = 0; f < NF; f++)
        pack_transposed(w_hh + f * units, fed, units, at, units, H_GATE, NGH,
                        (weight *)p[W_PACKED_T] + (f * vectors + v) * H_PANEL(units));
  }
  if (!p[W_PACKED_XT]) return;
  const long wide = (inputs + LANES - 1) / LANES;
  for (long v = wide * id / n[K_THREADS]; v < wide * (id + 1) / n[K_THREADS]; v++)
    pack_transposed(p[W_IH], inputs, inputs, v * LANES, units, X_GATE, NGX,
                    (weight *)p[W_PACKED_XT] + v * NGX * GROUPS(units) * LANES);
}

void gw_pack(const int64_t *n, void *const *p, parallel_fn parallel) {
  job j = {n, p, NULL};
  parallel(pack_task, &j, n[K_THREADS], 0);
}

#if TRAINING
/* Gradients from panels (U_SETS of them) and sums per unit (one set per thread) to torch's layout;
 * each null where nobody asks. */
enum { U_THREADS, U_INPUTS, U_UNITS, U_PADDED, U_SETS };
enum { G_X, G_H, G_BIAS, G_PARAM, G_W_IH, G_W_HH, G_B_IH, G_B_HH, G_PER_UNIT };

static void unpack_panel(const real *from, long set_step, long sets, long columns, long units,
                         long at, const int *accs, int count, real *w) {
  for (int g = 0; g < count; g++)
    for (long k0 = 0; k0 < columns; k0 += 16) { /* as in pack_panel */
      const long k1 = k0 + 16 < columns ? k0 + 16 : columns;
      for (int l = 0; l < LANES && at + l < units; l++) {
        real *to = w + (GATE_OF[accs[g]] * units + at + l) * columns;
        for (long k = k0; k < k1; k++) {
          const real *here = from + (k * count + g) * LANES + l;
          real sum = here[0];
          for (long s = 1; s < sets; s++) sum += here[s * set_step];
          to[k] = sum;
        }
      }
    }
}

/* to[units] = from[sets][..] summed, for the vector that begins at unit `at` */
static void unpack_units(const real *from, long set_step, long sets, long at, long units,
                         real *to) {
  for (long u = at; u < units && u < at + LANES; u++) {
    real sum = from[u];
    for (long s = 1; s < sets; s++) sum += from[s * set_step + u];
    to[u] = sum;
  }
}

static void unpack_bias(const job *j, long at) {
  const long units = j->n[U_UNITS], padded = j->n[U_PADDED];
  real *b_ih = j->p[G_B_IH], *b_hh = j->p[G_B_HH];
  for (int a = 0; a < NG; a++) {
    const real *from = (const real *)j->p[G_BIAS] + a * padded;
    const long row = GATE_OF[a] * units;
    if (FROM_X[a] && b_ih)
      unpack_units(from, NG * padded, j->n[U_THREADS], at, units, b_ih + row);
    if (BIAS_HH[a] && b_hh)
      unpack_units(from, NG * padded, j->n[U_THREADS], at, units, b_hh + row);
  }
  for (int k = 0; k < NP && j->p[G_PER_UNIT]; k++)
    unpack_units((const real *)j->p[G_PARAM] + k * padded, NP * padded, j->n[U_THREADS], at, units,
                 (real *)j->p[G_PER_UNIT] + k * units);
}

static void unpack_task(void *context, long id) {
  const job *j = context;
  const int64_t *n = j->n;
  const long units = n[U_UNITS], inputs = n[U_INPUTS], vectors = n[U_PADDED] / LANES;
  const long fed = NF * units, x_step = inputs * NGX * LANES, h_step = fed * NGH * LANES;
  for (long v = vectors * id / n[U_THREADS]; v < vectors * (id + 1) / n[U_THREADS]; v++) {
    unpack_bias(j, v * LANES);
    if (!j->p[G_X]) continue;
    unpack_panel((const real *)j->p[G_X] + v * x_step, vectors * x_step, n[U_SETS], inputs, units,
                 v * LANES, X_GATE, NGX, j->p[G_W_IH]);
    unpack_panel((const real *)j->p[G_H] + v * h_step, vectors * h_step, n[U_SETS], fed, units,
                 v * LANES, H_GATE, NGH, j->p[G_W_HH]);
  }
}

void gw_unpack(const int64_t *n, void *const *p, parallel_fn parallel) {
  job j = {n, p, NULL};
  parallel(unpack_task, &j, n[U_THREADS], 0);
}
#endif
