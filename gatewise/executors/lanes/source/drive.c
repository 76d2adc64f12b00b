/* What Python calls: run given sequences, or draw them from a task and train.
 *
 * Included after lanes.c and, for training, a task. Arguments: see the enums; launch.py mirrors
 * them.
 */

typedef struct {
  const int64_t *n;
  void *const *p;
} call;

enum { P_WEIGHT, P_PARAM, P_HEAD, P_TRACE, P_PTRACE, P_SUM_WEIGHT, P_SUM_PARAM, P_SUM_HEAD, P_RATE,
       P_START, P_X, P_SYMBOL, P_TARGET, P_TARGET_SYMBOL,
       /* given sequences */
       P_SEEN, P_WORST, P_SQUARED, P_ABSOLUTE,
       /* training */
       P_TASK = P_SEEN, P_CRITERION, P_STREAM, P_NUMBER, P_MET, P_RING_WRONG, P_RING_ERROR,
       P_ERROR_SUM, P_WRONG_COUNT, P_WORDS };
/* given sequences */
enum { N_STEPS, N_LEARNING };
/* training */
enum { N_COUNT, N_SEED, N_PURPOSE, N_WINDOW, N_MOST_WRONG, N_MEASURE };
/* criterion */
enum { C_TOLERANCE, C_ERROR };

static network the_network(void *const *p) {
  network n;
  memset(&n, 0, sizeof n);
  n.weight = p[P_WEIGHT], n.param = p[P_PARAM], n.head = p[P_HEAD];
  n.trace = p[P_TRACE], n.ptrace = p[P_PTRACE];
  n.sum_weight = p[P_SUM_WEIGHT], n.sum_param = p[P_SUM_PARAM], n.sum_head = p[P_SUM_HEAD];
  n.rate = load(p[P_RATE]);
  return n;
}

static sequence the_sequence(void *const *p) {
  sequence s;
  memset(&s, 0, sizeof s);
  s.x = p[P_X], s.symbol = p[P_SYMBOL];
  s.target = p[P_TARGET], s.target_symbol = p[P_TARGET_SYMBOL];
  return s;
}

int64_t gw_lanes(void) { return LANES; }

void gw_run(const int64_t *n, void *const *p) {
  network net = the_network(p);
  sequence s = the_sequence(p);
  int32_t length[LANES];
  for (int l = 0; l < LANES; l++) length[l] = (int32_t)n[N_STEPS] - ((int32_t *)p[P_START])[l];
  set_lengths(&s, length);
  run_sequence(&net, &s, (int)n[N_LEARNING], p[P_SEEN]);
  store(p[P_WORST], net.worst);
  store(p[P_SQUARED], net.squared);
  store(p[P_ABSOLUTE], net.absolute);
}

#ifdef TASK
int64_t gw_steps(const double *param) { return task_steps(param); }

/* Trains for at most N_COUNT sequences a network; returns how many lanes still learn. */
int64_t gw_train(const int64_t *n, void *const *p) {
  network net = the_network(p);
  sequence s = the_sequence(p);
  s.words = p[P_WORDS];
  const double *criterion = p[P_CRITERION];
  const int64_t window = n[N_WINDOW];
  int64_t *number = p[P_NUMBER], *met = p[P_MET], *wrong_count = p[P_WRONG_COUNT];
  double *error_sum = p[P_ERROR_SUM];
  const vec rate = net.rate;
  int64_t learning = 0;
  for (int64_t k = 0; k < n[N_COUNT]; k++) {
    source r;
    memset(&r, 0, sizeof r);
    r.key[0] = (uint32_t)n[N_SEED], r.key[1] = (uint32_t)((uint64_t)n[N_SEED] >> 32);
    r.purpose = (uint32_t)n[N_PURPOSE];
    learning = 0;
    for (int l = 0; l < LANES; l++) {
      r.stream[l] = ((uint32_t *)p[P_STREAM])[l];
      r.number[l] = (uint32_t)number[l];
      net.rate[l] = met[l] ? 0 : rate[l];
      learning += !met[l];
    }
    if (!learning) return 0;
    task_draw(p[P_TASK], &r, &s);
    run_sequence(&net, &s, 1, NULL);
    for (int l = 0; l < LANES; l++) {
      if (met[l]) continue;
      const long judged = OUTPUTS * (EVERY_STEP && !JUDGE_END ? s.steps - s.start[l] : 1);
      const real error = (n[N_MEASURE] ? net.absolute[l] : net.squared[l]) / judged;
      const uint8_t wrong = !(net.worst[l] <= criterion[C_TOLERANCE]); /* NaN is wrong */
      const int64_t at = number[l] % window * LANES + l;
      uint8_t *ring_wrong = (uint8_t *)p[P_RING_WRONG] + at;
      real *ring_error = (real *)p[P_RING_ERROR] + at;
      wrong_count[l] += wrong - *ring_wrong;
      error_sum[l] += error - *ring_error;
      *ring_wrong = wrong;
      *ring_error = error;
      number[l]++;
      if (number[l] >= window && wrong_count[l] <= n[N_MOST_WRONG] &&
          error_sum[l] < criterion[C_ERROR] * window)
        met[l] = number[l];
    }
  }
  return learning;
}
#endif
