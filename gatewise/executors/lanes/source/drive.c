/* What Python calls: run given sequences, or draw them from a task and train or test.
 *
 * Included after run.c and, for training, a task. Arguments: see the enums; launch.py mirrors
 * them.
 */

typedef struct {
  const int64_t *n;
  void *const *p;
} call;

enum { P_WEIGHT, P_PARAM, P_HEAD, P_TRACE, P_PTRACE, P_SUM_WEIGHT, P_SUM_PARAM, P_SUM_HEAD, P_RATE,
       P_TAPE,
       P_START, P_X, P_SYMBOL, P_TARGET, P_TARGET_SYMBOL,
       P_ALLOWED,
       /* given sequences */
       P_SEEN, P_WORST, P_SQUARED, P_ABSOLUTE,
       /* training */
       P_TASK = P_SEEN, P_CRITERION, P_STREAM, P_NUMBER, P_MET, P_RING_WRONG, P_RING_ERROR,
       P_ERROR_SUM, P_WRONG_COUNT, P_WORDS,
       /* testing: as training up to P_STREAM */
       P_WANTED = P_NUMBER, P_TEST_WRONG, P_TEST_ERROR, P_TEST_WORDS };
/* given sequences */
enum { N_STEPS, N_LEARNING };
/* training and testing */
enum { N_COUNT, N_SEED, N_PURPOSE, N_MOST_WRONG, N_MEASURE, N_WINDOW };
/* criterion */
enum { C_TOLERANCE, C_ERROR };

static network the_network(void *const *p) {
  network n;
  memset(&n, 0, sizeof n);
  n.weight = p[P_WEIGHT], n.param = p[P_PARAM], n.head = p[P_HEAD];
  n.trace = p[P_TRACE], n.ptrace = p[P_PTRACE];
  n.sum_weight = p[P_SUM_WEIGHT], n.sum_param = p[P_SUM_PARAM], n.sum_head = p[P_SUM_HEAD];
  n.rate = load(p[P_RATE]);
  n.tape = p[P_TAPE];
  return n;
}

static sequence the_sequence(void *const *p) {
  sequence s;
  memset(&s, 0, sizeof s);
  s.x = p[P_X], s.symbol = p[P_SYMBOL];
  s.target = p[P_TARGET], s.target_symbol = p[P_TARGET_SYMBOL], s.allowed = p[P_ALLOWED];
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

static source the_source(const int64_t *n, void *const *p) {
  source r;
  memset(&r, 0, sizeof r);
  r.key[0] = (uint32_t)n[N_SEED], r.key[1] = (uint32_t)((uint64_t)n[N_SEED] >> 32);
  r.purpose = (uint32_t)n[N_PURPOSE];
  for (int l = 0; l < LANES; l++) r.stream[l] = ((uint32_t *)p[P_STREAM])[l];
  return r;
}

/* Mean error of the sequence that lane l has run. */
static real mean_error(const network *net, const sequence *s, const int64_t *n, int l) {
  const long judged = OUTPUTS * (EVERY_STEP && !JUDGE_END ? s->steps - s->start[l] : 1);
  return (n[N_MEASURE] ? net->absolute[l] : net->squared[l]) / judged;
}

static int is_wrong(const network *net, const double *criterion, int l) {
  return !(net->worst[l] <= criterion[C_TOLERANCE]); /* NaN is wrong */
}

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
  source r = the_source(n, p);
  int64_t learning = 0;
  for (int64_t k = 0; k < n[N_COUNT]; k++) {
    learning = 0;
    for (int l = 0; l < LANES; l++) {
      r.number[l] = (uint32_t)number[l];
      net.rate[l] = met[l] ? 0 : rate[l];
      learning += !met[l];
    }
    if (!learning) return 0;
    task_draw(p[P_TASK], &r, &s);
    run_sequence(&net, &s, 1, NULL);
    for (int l = 0; l < LANES; l++) {
      if (met[l]) continue;
      const real error = mean_error(&net, &s, n, l);
      const uint8_t wrong = is_wrong(&net, criterion, l);
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

/* Runs sequences 0 … N_COUNT-1 of every stream without learning and counts the wrong ones; stops
 * when all wanted lanes have more than N_MOST_WRONG. Returns how many it has run. */
int64_t gw_test(const int64_t *n, void *const *p) {
  network net = the_network(p);
  sequence s = the_sequence(p);
  s.words = p[P_TEST_WORDS];
  source r = the_source(n, p);
  const uint8_t *wanted = p[P_WANTED];
  int64_t *wrong = p[P_TEST_WRONG], k = 0;
  double *error = p[P_TEST_ERROR];
  for (int open = 1; open && k < n[N_COUNT]; k++) {
    r.number = (uvec){0} + (uint32_t)k;
    task_draw(p[P_TASK], &r, &s);
    run_sequence(&net, &s, 0, NULL);
    open = 0;
    for (int l = 0; l < LANES; l++) {
      wrong[l] += is_wrong(&net, p[P_CRITERION], l);
      error[l] += mean_error(&net, &s, n, l);
      open |= wanted[l] && wrong[l] <= n[N_MOST_WRONG];
    }
  }
  return k;
}
#endif
