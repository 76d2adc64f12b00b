/* What Python calls to see a task's sequences. Included after sequence.h and a task. */

int64_t gw_lanes(void) { return LANES; }
int64_t gw_steps(const double *param) { return task_steps(param); }

int64_t gw_draw(const double *param, int64_t seed, int64_t purpose, const uint32_t *stream,
                const uint32_t *number, int32_t *start, vec *x, int32_t *symbol, vec *target,
                int32_t *target_symbol, int32_t *allowed, uvec *words) {
  source r;
  memset(&r, 0, sizeof r);
  r.key[0] = (uint32_t)seed, r.key[1] = (uint32_t)((uint64_t)seed >> 32);
  r.purpose = (uint32_t)purpose;
  for (int l = 0; l < LANES; l++) r.stream[l] = stream[l], r.number[l] = number[l];
  sequence s;
  memset(&s, 0, sizeof s);
  s.x = x, s.symbol = symbol, s.target = target, s.target_symbol = target_symbol;
  s.allowed = allowed, s.words = words;
  task_draw(param, &r, &s);
  memcpy(start, s.start, sizeof s.start);
  return s.steps;
}
