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
 */
#define FULL 0
#define BF16 1

#if HELD == FULL
#define GROUP 1
#define NATIVE 1 /* multiplied as they are held, not widened */
typedef real weight, operand;
typedef vec weights, spread;
INLINE weights load_weights(const weight *p) { return load(p); }
INLINE spread spread_operand(const operand *p) { return splat(*p); }
INLINE vec accumulate(vec acc, spread a, weights w) { return acc + a * w; }
INLINE weight make_weight(const real *from, long step, long left) { return *from; }
#else

#define GROUP 2
typedef uint32_t weight; /* the first input's in the low half */
typedef uint32_t wide_weight __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t loose_weight __attribute__((vector_size(VECTOR_BYTES), aligned(4)));

/* to the nearest, ties to even; NaN stays NaN */
INLINE uint32_t bfloat_bits(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof b);
  return x != x ? 0x7fc0 : (b + 0x7fff + (b >> 16 & 1)) >> 16;
}

/* The entry of one lane: `left` weights are left, `step` apart; zeros fill up. */
INLINE weight make_weight(const real *from, long step, long left) {
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
#endif

#define GROUPS(n) (((n) + GROUP - 1) / GROUP)
/* Operands of a row of n numbers, in whole vectors. */
#define ROOM(n) ((GROUPS(n) + LANES - 1) / LANES * LANES)

/* A row as a product reads it; `room` is for ROOM(count) operands, used where they are not the
 * numbers themselves. `mask` [count] or null scales the row. */
INLINE const operand *as_operands(const real *row, const real *mask, long count, operand *room) {
#if HELD == FULL
  if (!mask) return row;
  for (long k = 0; k < count; k++) room[k] = row[k] * mask[k];
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
