/* Derivatives that come along with the steps: the traces of the 1997 rule, or exact ones. Included
 * after lanes.c.
 *
 * One step adds slope[u,a] y[m] to every trace, after the old value has been multiplied by the
 * carried state's own derivative. That is one multiplication, one load and one store each; so the
 * factors of up to BLOCK_STEPS steps are kept, and the traces brought up to date when an error
 * needs them: a product of a thin and a flat matrix, whose sums stay in registers.
 */
#define BLOCK_STEPS 8
#define TRACES (UNITS * NTA)
#define TRACE_VECS ((long)SOURCES * UNITS * (EXACT ? ROWS : NTA))
#define FIRST (SPARSE ? FED_AT : 0) /* a symbol's column is reached by its number */

typedef struct {
  int count;
  vec slope[BLOCK_STEPS][TRACES + 1];
  vec y[BLOCK_STEPS][SOURCES]; /* the last of them is always 1 */
  vec carry[BLOCK_STEPS][UNITS];
  const int32_t *symbol[BLOCK_STEPS];
} pending;

#if !WHOLE
/* What this step adds, for later. */
INLINE void remember(network *n, step_data *d, pending *w, const int masked, ivec live) {
  vec(*previous)[NS] = d->state[d->now], (*next)[NS] = d->state[!d->now];
  const int j = w->count++;
  w->symbol[j] = d->symbol;
  if (EVERY_STEP && d->y != w->y[j]) memcpy(w->y[j], d->y, sizeof w->y[j]);
  UNROLL for (int u = 0; u < UNITS; u++) {
    vec p[NP + 1], slope[NTA + 1], pslope[NTP + 1], carry = splat(1);
    for (int k = 0; k < NP; k++) p[k] = n->param[k * UNITS + u];
    step_jacobian(d->kept[u], previous[u], next[u], p, &carry, slope, pslope);
    if (!RIGID) w->carry[j][u] = carry;
    for (int k = 0; k < NTA; k++)
      w->slope[j][u * NTA + k] = masked ? blend(live, slope[k], splat(0)) : slope[k];
    for (int k = 0; k < NTP; k++) {
      const vec now = masked ? blend(live, pslope[k], splat(0)) : pslope[k];
      n->ptrace[u * NTP + k] = carry * n->ptrace[u * NTP + k] + now;
    }
  }
}

/* Columns in even tiles of at most 12, the last one narrower. */
#define COLUMNS (SOURCES - FIRST)
#define TILES ((COLUMNS + 11) / 12)
#define TILE_M ((COLUMNS + TILES - 1) / TILES)
#define LAST_M (COLUMNS - TILE_M * (TILES - 1))
#define TILE_R (TRACES % 2 == 0 && REGISTERS == 32 ? 2 : 1)

INLINE void flush_tile(vec *S, const vec *decay, const pending *w, int r, int m, const int count) {
  vec sum[TILE_R][TILE_M];
  UNROLL for (int i = 0; i < TILE_R; i++)
    UNROLL for (int k = 0; k < count; k++) {
      sum[i][k] = S[(r + i) * SOURCES + m + k];
      if (!RIGID) sum[i][k] *= decay[i];
    }
  for (int j = 0; j < w->count; j++)
    UNROLL for (int i = 0; i < TILE_R; i++) {
      const vec slope = w->slope[j][r + i];
      UNROLL for (int k = 0; k < count; k++) sum[i][k] += slope * w->y[j][m + k];
    }
  UNROLL for (int i = 0; i < TILE_R; i++)
    UNROLL for (int k = 0; k < count; k++) S[(r + i) * SOURCES + m + k] = sum[i][k];
}

INLINE void flush_symbols(vec *S, vec decay, const pending *w, int r) {
  if (!RIGID)
    for (int m = 0; m < INPUTS; m++) S[m] *= decay;
  for (int j = 0; j < w->count; j++)
    for (int l = 0; l < LANES; l++) S[w->symbol[j][l]][l] += w->slope[j][r][l];
}

static void flush(network *n, pending *w) {
  vec decay[TRACES + 1];
  if (w->count == 0) return;
  if (!RIGID) /* what a step adds decays with every later step's carry */
    for (int u = 0; u < UNITS; u++) {
      vec later = splat(1);
      for (int j = w->count - 1; j >= 0; j--) {
        for (int k = 0; k < NTA; k++) w->slope[j][u * NTA + k] *= later;
        later *= w->carry[j][u];
      }
      for (int k = 0; k < NTA; k++) decay[u * NTA + k] = later;
    }
  for (int r = 0; r < TRACES; r += TILE_R) {
    for (int m = FIRST; m < SOURCES - LAST_M; m += TILE_M)
      flush_tile(n->trace, decay + r, w, r, m, TILE_M);
    flush_tile(n->trace, decay + r, w, r, SOURCES - LAST_M, LAST_M);
  }
  if (SPARSE)
    for (int r = 0; r < TRACES; r++)
      if (FROM_X[TRACED[r % AT_LEAST_1(NTA)]])
        flush_symbols(n->trace + (long)r * SOURCES, decay[r], w, r);
  w->count = 0;
}

/* ---- exact derivatives ----------------------------------------------------------------
 * trace[r][m][u] = dh_u / dweight[m][r]: one step multiplies it by the Jacobian of h by the h before
 * and adds the step's own derivative. Each column of UNITS numbers is read and written once.
 */
static void advance(network *n, const step_data *d, const int masked, ivec live) {
  vec(*previous)[NS] = d->state[d->now], (*next)[NS] = d->state[!d->now];
  vec slope[UNITS], jacobian[UNITS][UNITS]; /* [v][u]: dh_u / dh_v of the step before */
  for (int u = 0; u < UNITS; u++) {
    vec own[NTA + 1], unused[NTP + 1], carry = splat(0);
    step_jacobian(d->kept[u], previous[u], next[u], n->param, &carry, own, unused);
    slope[u] = masked ? blend(live, own[0], splat(0)) : own[0];
    for (int v = 0; v < UNITS; v++) jacobian[v][u] = slope[u] * n->weight[(FED_AT + v) * ROWS + u];
    jacobian[u][u] += masked ? blend(live, carry, splat(0)) : carry;
  }
  for (int r = 0; r < UNITS; r++)
    for (int m = 0; m < SOURCES; m++) {
      vec *column = n->trace + ((long)r * SOURCES + m) * UNITS, sum[UNITS];
      UNROLL for (int u = 0; u < UNITS; u++) sum[u] = splat(0);
      for (int v = 0; v < UNITS; v++)
        UNROLL for (int u = 0; u < UNITS; u++) sum[u] += jacobian[v][u] * column[v];
      sum[r] += slope[r] * (SPARSE && m < INPUTS ? one_where(d->symbol, m) : d->y[m]);
      UNROLL for (int u = 0; u < UNITS; u++) column[u] = sum[u];
    }
}

#endif /* !WHOLE */
