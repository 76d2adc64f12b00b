/* Uniform numbers of (seed, stream, step, row, unit): what executors/counter.py defines, bit for
 * bit. Included after vector.h (REAL_BITS 32) and philox.h. */

typedef void (*task)(void *, long);
typedef int (*parallel_fn)(task, void *, long, int together);

enum { N_THREADS, N_ROWS, N_UNITS, N_STEPS, N_FIRST, N_STREAM, N_SEED };

typedef struct {
  const int64_t *n;
  real *to; /* [steps, rows, units] */
} job;

#define BLOCK (4 * LANES) /* units of one call of philox: four words of each lane */

static void uniform_row(const int64_t *n, uint32_t step, uint32_t row, real *to) {
  const uint32_t key[2] = {(uint32_t)n[N_SEED], (uint32_t)((uint64_t)n[N_SEED] >> 32)};
  const long units = n[N_UNITS];
  uvec lane;
  for (int l = 0; l < LANES; l++) lane[l] = (uint32_t)l;
  for (long at = 0; at < units; at += BLOCK) {
    const uvec counter[4] = {lane + (uint32_t)(at / 4), (uvec){0} + row, (uvec){0} + step,
                             (uvec){0} + (uint32_t)n[N_STREAM]};
    uvec words[4];
    philox(counter, key, words);
    real numbers[BLOCK];
    for (int w = 0; w < 4; w++) {
      const vec u = unit(words[w]);
      for (int l = 0; l < LANES; l++) numbers[4 * l + w] = u[l];
    }
    memcpy(to + at, numbers, (units - at < BLOCK ? units - at : BLOCK) * sizeof(real));
  }
}

static void uniform_task(void *context, long id) {
  const job *j = context;
  const int64_t *n = j->n;
  const long all = n[N_STEPS] * n[N_ROWS];
  for (long k = all * id / n[N_THREADS]; k < all * (id + 1) / n[N_THREADS]; k++)
    uniform_row(n, (uint32_t)(n[N_FIRST] + k / n[N_ROWS]), (uint32_t)(k % n[N_ROWS]),
                j->to + k * n[N_UNITS]);
}

void gw_uniform(const int64_t *n, void *const *p, parallel_fn parallel) {
  job j = {n, p[0]};
  parallel(uniform_task, &j, n[N_THREADS], 0);
}
