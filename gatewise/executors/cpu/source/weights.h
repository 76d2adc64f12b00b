/* What a product reads: weights in panels and the rows they multiply.
 *
 * HELD says how weights are held: FULL, as `real`; BF16, rounded to bfloat16. An entry of a panel
 * has the weights of GROUP inputs for each lane, a row is read as `operand`s of GROUP numbers.
 * Sums are `real`, whatever is multiplied.
 *
 *   FULL  GROUP 1: weight and operand are numbers
 *   BF16  GROUP 2: a pair of weights in 32 bits. Where the processor multiplies such pairs
 *         (AVX512_BF16), rows are rounded to pairs too; elsewhere weights are widened as they are
 *         loaded and rows stay as they are.
 *   INT8  GROUP 4: four weights in 32 bits, w = scale · integer, a scale for each output. Where the
 *         processor multiplies bytes (AVX512_VNNI), rows are rounded to 16 bits of their largest
 *         number and multiplied as two bytes; elsewhere weights are widened. A panel begins with
 *         HEAD entries: the scales, and the sums of the integers.
 */
#define FULL 0
#define BF16 1
#define INT8 2

#if HELD == INT8
#define GROUP 4
#define HEAD 2
#else
#define HEAD 0
#endif

#if HELD == FULL
#define GROUP 1
#define NATIVE 1 /* multiplied as they are held, not widened */
typedef real weight, operand;
typedef vec weights, spread;
INLINE weights load_weights(const weight *p) { return load(p); }
INLINE spread spread_operand(const operand *p) { return splat(*p); }
INLINE vec accumulate(vec acc, spread a, weights w) { return acc + a * w; }
INLINE real scale_of(const real *from, long step, long count) { return 1; }
INLINE weight make_weight(const real *from, long step, long left, real scale) { return *from; }
#else

typedef uint32_t weight; /* the first input's in the lowest bits */
typedef uint32_t wide_weight __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t loose_weight __attribute__((vector_size(VECTOR_BYTES), aligned(4)));

#if HELD == BF16
#define GROUP 2
INLINE real scale_of(const real *from, long step, long count) { return 1; }

/* to the nearest, ties to even; NaN stays NaN */
INLINE uint32_t bfloat_bits(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof b);
  return x != x ? 0x7fc0 : (b + 0x7fff + (b >> 16 & 1)) >> 16;
}

/* The entry of one lane: `left` weights are left, `step` apart; zeros fill up. */
INLINE weight make_weight(const real *from, long step, long left, real scale) {
  return bfloat_bits(from[0]) | (left > 1 ? bfloat_bits(from[step]) << 16 : 0);
}

#if defined(__AVX512BF16__)
#define NATIVE 1
typedef uint32_t operand;
typedef wide_weight weights, spread;
INLINE weights load_weights(const weight *p) { return *(const loose_weight *)p; }
INLINE spread spread_operand(const operand *p) { return *p - (spread){0}; }
INLINE vec accumulate(vec acc, spread a, weights w) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(w));
  return acc;
}
/* 2·LANES numbers to LANES pairs */
INLINE void narrow(const real *from, operand *to) {
  wide_weight pairs;
  __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(pairs) : "v"(load(from)), "v"(load(from + LANES)));
  *(loose_weight *)to = pairs;
}
#else
#define NATIVE 0
typedef struct { real first, second; } operand;
typedef struct { vec first, second; } weights, spread;
INLINE weights load_weights(const weight *p) {
  const wide_weight pairs = *(const loose_weight *)p;
  return (weights){bits_to_vec((ivec)(pairs << 16)), bits_to_vec((ivec)(pairs & 0xffff0000u))};
}
INLINE spread spread_operand(const operand *p) {
  return (spread){splat(p->first), splat(p->second)};
}
INLINE vec accumulate(vec acc, spread a, weights w) {
  acc += a.first * w.first;
  return acc + a.second * w.second;
}
INLINE void narrow(const real *from, operand *to) { memcpy(to, from, 2 * LANES * sizeof(real)); }
#endif

#else /* INT8 */
/* What the integer 1 stands for: the largest of `count` weights is 127. */
INLINE real scale_of(const real *from, long step, long count) {
  real most = 0;
  for (long k = 0; k < count; k++) {
    const real size = fabsf(from[k * step]);
    most = size > most || size != size ? size : most;
  }
  return most / 127;
}

INLINE int small_integer(real w, real scale) { return scale > 0 ? (int)rintf(w / scale) : 0; }

INLINE weight make_weight(const real *from, long step, long left, real scale) {
  weight four = 0;
  for (long i = 0; i < 4 && i < left; i++)
    four |= (weight)(uint8_t)small_integer(from[i * step], scale) << 8 * i;
  return four;
}

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define NATIVE 1
typedef struct { uint32_t high, low; } operand; /* four bytes each: 256 · (high - 128) + low */
#else
#define NATIVE 0
typedef struct { real number[4]; } operand;
#endif
#endif
#endif

#define GROUPS(n) (((n) + GROUP - 1) / GROUP)
#define ENTRIES(n) (HEAD + GROUPS(n)) /* of a panel for n inputs */
/* Operands of a row of n numbers, in whole vectors; the first HEAD hold its scale. */
#define ROOM(n) ((ENTRIES(n) + LANES - 1) / LANES * LANES)

#if HELD == INT8
#if NATIVE
/* `left` numbers of a row, at most LANES, to operands. */
INLINE void narrow_bytes(const real *from, long left, real inverse, operand *to) {
  typedef uint8_t bytes __attribute__((vector_size(LANES)));
  const real magic = 12582912.0f; /* adding it rounds to a whole number; see vector.h */
  real numbers[LANES] = {0};
  memcpy(numbers, from, left * sizeof(real));
  const vec rounded = load(numbers) * inverse + magic;
  const ivec whole = vec_to_bits(rounded) - vec_to_bits(splat(magic)) + 32768;
  const bytes high = __builtin_convertvector(whole >> 8, bytes);
  const bytes low = __builtin_convertvector(whole & 255, bytes);
  uint32_t h[LANES / 4], l[LANES / 4];
  memcpy(h, &high, sizeof h);
  memcpy(l, &low, sizeof l);
  for (int k = 0; k < LANES / 4 && 4 * k < left; k++) to[k] = (operand){h[k], l[k]};
}

INLINE void quantise(const real *row, long count, operand *to) {
  real most = 0, poison = 0; /* NaN where the row is not finite: so are its sums */
  for (long k = 0; k < count; k++) {
    const real size = fabsf(row[k]);
    most = size > most ? size : most;
    poison += row[k] * 0;
  }
  const real scale = most / 32767 + poison, inverse = most > 0 ? 32767 / most : 0;
  memcpy(to, &scale, sizeof scale);
  for (long k = 0; k < count; k += LANES)
    narrow_bytes(row + k, count - k < LANES ? count - k : LANES, inverse, to + HEAD + k / 4);
}
#else
INLINE void quantise(const real *row, long count, operand *to) {
  memset(to + ENTRIES(count) - 1, 0, sizeof *to);
  memcpy(to + HEAD, row, count * sizeof(real));
}
#endif
#endif

/* A row as a product reads it; `room` is for ROOM(count) operands, used where they are not the
 * numbers themselves. `mask` [count] or null scales the row. */
INLINE const operand *as_operands(const real *row, const real *mask, long count, operand *room) {
#if HELD == FULL
  if (!mask) return row;
  for (long k = 0; k < count; k++) room[k] = row[k] * mask[k];
#elif HELD == INT8
  if (mask) {
    real masked[count];
    for (long k = 0; k < count; k++) masked[k] = row[k] * mask[k];
    quantise(masked, count, room);
  } else {
    quantise(row, count, room);
  }
#else
  for (long k = 0; k < count; k += GROUP * LANES) {
    const long left = count - k < GROUP * LANES ? count - k : GROUP * LANES;
    real piece[GROUP * LANES] = {0};
    if (!mask && left == GROUP * LANES) {
      narrow(row + k, room + k / GROUP);
      continue;
    }
    memcpy(piece, row + k, left * sizeof(real));
    for (long i = 0; mask && i < left; i++) piece[i] *= mask[k + i];
    narrow(piece, room + k / GROUP);
  }
#endif
  return room;
}
