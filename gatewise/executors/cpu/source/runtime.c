/* Threads for the kernels: PyTorch's own where they can be had (below), else one pool for the
 * process.
 *
 * gw_parallel(task, context, n) calls task(context, 0 … n-1) on up to n threads, the caller's
 * among them, and returns when all are done. Workers wait for the next call by spinning
 * briefly, then asleep. A second caller at the same time does its work alone, in order; tasks that
 * wait for each other ask for `together` and get 0 instead, with nothing run. After fork the child starts with no workers.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define MOST_WORKERS 255
#define SPINS 4000 /* some 50 µs: shorter than a sleep and a wake-up, too short to matter */

typedef void (*task_fn)(void *, long);

static pthread_mutex_t caller = PTHREAD_MUTEX_INITIALIZER; /* held during a parallel call */
static pthread_mutex_t sleeping = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static atomic_long generation; /* counts parallel calls; a change is the signal to start */
static atomic_long unfinished;
static long born[MOST_WORKERS]; /* the generation at a worker's start: not its signal */
static long workers;

static task_fn current; /* written before generation is raised, read after */
static void *current_context;
static long tasks, team;

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void *work(void *argument) {
  const long id = (long)(intptr_t)argument;
  long seen = born[id];
  for (;;) {
    for (int k = 0; k < SPINS && atomic_load(&generation) == seen; k++) pause_briefly();
    if (atomic_load(&generation) == seen) {
      pthread_mutex_lock(&sleeping);
      while (atomic_load(&generation) == seen) pthread_cond_wait(&wake, &sleeping);
      pthread_mutex_unlock(&sleeping);
    }
    seen = atomic_load(&generation);
    if (id + 1 < team)
      for (long k = id + 1; k < tasks; k += team) current(current_context, k);
    atomic_fetch_sub(&unfinished, 1);
  }
  return 0;
}

static void forget_workers(void) {
  workers = 0;
  pthread_mutex_init(&caller, 0);
  pthread_mutex_init(&sleeping, 0);
  pthread_cond_init(&wake, 0);
}

static void add_workers(long count) {
  static int registered;
  if (!registered) registered = !pthread_atfork(0, 0, forget_workers);
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  while (workers < count) {
    pthread_t thread;
    born[workers] = atomic_load(&generation);
    if (pthread_create(&thread, &detached, work, (void *)(intptr_t)workers)) break;
    workers++;
  }
  pthread_attr_destroy(&detached);
}

/* ---- the threads PyTorch already has ------------------------------------------------- */

/* Where PyTorch's own OpenMP library is found, its team does the work: its threads are awake when
 * a layer follows another operation, and two pools would fight for the cores. */
typedef void (*omp_region)(void (*)(void *), void *, unsigned, unsigned);
static omp_region omp_parallel;
static int (*omp_thread)(void), (*omp_team_size)(void);
static pid_t omp_process; /* its threads do not survive a fork */

void gw_use_team(void *parallel, void *thread, void *size) {
  omp_thread = (int (*)(void))thread;
  omp_team_size = (int (*)(void))size;
  omp_process = getpid();
  omp_parallel = (omp_region)parallel;
}

typedef struct {
  task_fn task;
  void *context;
  long n;
  int together, refused;
} team_call;

static void team_member(void *argument) {
  team_call *c = argument;
  const int id = omp_thread(), size = omp_team_size();
  if (c->together && size < c->n) {
    c->refused = 1;
    return;
  }
  for (long k = id; k < c->n; k += size) c->task(c->context, k);
}

int gw_parallel(task_fn task, void *context, long n, int together) {
  if (n > 1 && omp_parallel && getpid() == omp_process) {
    team_call call = {task, context, n, together, 0};
    omp_parallel(team_member, &call, (unsigned)n, 0);
    return !call.refused;
  }
  if (n > 1 && pthread_mutex_trylock(&caller) == 0) {
    const long want = n < MOST_WORKERS + 1 ? n : MOST_WORKERS + 1;
    if (workers < want - 1) add_workers(want - 1);
    if (together && (workers < n - 1)) {
      pthread_mutex_unlock(&caller);
      return 0;
    }
    current = task;
    current_context = context;
    tasks = n;
    team = workers + 1 < want ? workers + 1 : want;
    atomic_store(&unfinished, workers);
    pthread_mutex_lock(&sleeping);
    atomic_fetch_add(&generation, 1);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&sleeping);
    for (long k = 0; k < n; k += team) task(context, k);
    for (int k = 0; atomic_load(&unfinished); k++) {
      if (k < SPINS) pause_briefly();
      else sched_yield();
    }
    pthread_mutex_unlock(&caller);
    return 1;
  }
  if (together && n > 1) return 0;
  for (long k = 0; k < n; k++) task(context, k);
  return 1;
}

typedef void (*kernel_fn)(const int64_t *, void *const *, int (*)(task_fn, void *, long, int));

/* One kernel for `count` networks: argument i of network k lies k * steps[i] bytes after base[i]. */
#define MOST_ARGUMENTS 256

typedef struct {
  kernel_fn kernel;
  const int64_t *numbers, *steps;
  char *const *base;
  long count, arguments, threads;
} networks;

static int in_order(task_fn task, void *context, long n, int together) {
  if (together && n > 1) return 0;
  for (long k = 0; k < n; k++) task(context, k);
  return 1;
}

/* Networks that are split over threads are computed by one thread each. */
static void run_networks(void *context, long id) {
  const networks *w = context;
  void *own[MOST_ARGUMENTS];
  for (long k = w->count * id / w->threads; k < w->count * (id + 1) / w->threads; k++) {
    for (long i = 0; i < w->arguments; i++)
      own[i] = w->base[i] ? w->base[i] + k * w->steps[i] : 0;
    w->kernel(w->numbers, own, w->threads > 1 ? in_order : gw_parallel);
  }
}

int gw_networks(long count, long threads, kernel_fn kernel, const int64_t *numbers,
                char *const *base, const int64_t *steps, long arguments) {
  networks w = {kernel, numbers, steps, base, count, arguments, threads};
  if (arguments > MOST_ARGUMENTS) return 0;
  return gw_parallel(run_networks, &w, threads, 0);
}

/* One call for a stack of layers: kernel k reads what kernel k-1 wrote. */
void gw_chain(long count, const kernel_fn *kernels, const int64_t *const *numbers,
              void *const *const *pointers) {
  for (long k = 0; k < count; k++) kernels[k](numbers[k], pointers[k], gw_parallel);
}

/* ---- have the weights changed? ------------------------------------------------------- */

typedef uint32_t words __attribute__((vector_size(64)));

/* Every word goes through its lane by steps that can be undone, so that a single change always
 * shows; the shift carries high bits down, so that changes of signs do not cancel. */
static words stir(words sum, words w) {
  sum = (sum ^ w) * 0x9e3779b1u;
  return sum ^ sum >> 15;
}

uint64_t gw_fingerprint(long count, const void *const *at, const int64_t *bytes) {
  words lanes[4] = {{1}, {2}, {3}, {4}};
  for (long k = 0; k < count; k++) {
    const char *from = at[k], *end = from + bytes[k];
    words w[4];
    for (; end - from >= (long)sizeof w; from += sizeof w) {
      memcpy(w, from, sizeof w);
      for (int i = 0; i < 4; i++) lanes[i] = stir(lanes[i], w[i]);
    }
    memset(w, 0, sizeof w);
    memcpy(w, from, end - from);
    for (int i = 0; i < 4; i++) lanes[i] = stir(lanes[i], w[i] + (uint32_t)bytes[k]);
  }
  uint64_t sum = 0;
  for (int i = 0; i < 4; i++)
    for (int l = 0; l < 16; l++) {
      sum = (sum ^ lanes[i][l]) * 0x9e3779b97f4a7c15u;
      sum ^= sum >> 32;
    }
  return sum;
}
