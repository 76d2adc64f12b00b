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

/* ---- calls that do not depend on each other --------------------------------------------- */

/* The threads form crews, and each crew makes some of the calls: its first member runs the kernel,
 * the others wait for the tasks that the kernel hands out. A crew of one runs them in order. */
typedef struct {
  _Alignas(64) long size;
  task_fn task; /* null: there is no other call */
  void *context;
  long tasks;
  atomic_long handed_out; /* counts; a change is the signal to start */
  atomic_long unfinished;
} crew;

static _Thread_local crew *own_crew; /* of the thread that runs a kernel */

static void wait_a_little(long k) {
  if (k < SPINS) pause_briefly();
  else sched_yield();
}

static void hand_out(crew *c, task_fn task, void *context, long n) {
  c->task = task;
  c->context = context;
  c->tasks = n;
  atomic_store(&c->unfinished, c->size - 1);
  atomic_fetch_add(&c->handed_out, 1);
}

static int crew_parallel(task_fn task, void *context, long n, int together) {
  crew *c = own_crew;
  if (together && n > c->size) return 0;
  hand_out(c, task, context, n);
  for (long k = 0; k < n; k += c->size) task(context, k);
  for (long k = 0; atomic_load(&c->unfinished); k++) wait_a_little(k);
  return 1;
}

static void follow(crew *c, long place) {
  for (long seen = 0;; seen++) {
    for (long k = 0; atomic_load(&c->handed_out) == seen; k++) wait_a_little(k);
    if (!c->task) return;
    for (long k = place; k < c->tasks; k += c->size) c->task(c->context, k);
    atomic_fetch_sub(&c->unfinished, 1);
  }
}

/* One kernel for some networks: argument i of network k lies k * steps[i] bytes after base[i]. */
#define MOST_ARGUMENTS 256

typedef struct {
  kernel_fn kernel;
  const int64_t *numbers, *steps;
  char *const *base;
  long arguments;
} call;

typedef struct {
  const call *calls;
  long number, networks, crews;
  crew *crew;
} many_calls;

static void make_call(const call *c, long network, int (*parallel)(task_fn, void *, long, int)) {
  void *own[MOST_ARGUMENTS];
  for (long i = 0; i < c->arguments; i++)
    own[i] = c->base[i] ? c->base[i] + network * c->steps[i] : 0;
  c->kernel(c->numbers, own, parallel);
}

static void crew_task(void *context, long id) {
  const many_calls *w = context;
  const long all = w->number * w->networks, k = id % w->crews, place = id / w->crews;
  crew *c = w->crew + k;
  if (place) return follow(c, place);
  own_crew = c;
  for (long i = all * k / w->crews; i < all * (k + 1) / w->crews; i++)
    make_call(w->calls + i / w->networks, i % w->networks, crew_parallel);
  hand_out(c, 0, 0, 0);
}

/* `number` calls for `networks` networks each, on `crews` crews that share `threads` threads; 0
 * where a call has too many arguments. Without these threads, one call after the other. */
int gw_side_by_side(const call *calls, long number, long networks, long crews, long threads) {
  crew crew[crews];
  many_calls w = {calls, number, networks, crews, crew};
  for (long i = 0; i < number; i++)
    if (calls[i].arguments > MOST_ARGUMENTS) return 0;
  memset(crew, 0, sizeof crew);
  for (long k = 0; k < crews; k++) crew[k].size = threads / crews;
  if (crews > 1 && gw_parallel(crew_task, &w, crews * (threads / crews), 1)) return 1;
  for (long i = 0; i < number * networks; i++)
    make_call(calls + i / networks, i % networks, gw_parallel);
  return 1;
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
