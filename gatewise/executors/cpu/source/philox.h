/* Philox 4x32-10 (Salmon et al., 2011): four random words of a counter and a key, on LANES counters
 * at once. Included after vector.h. executors/counter.py is the same on tensors. */

typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
typedef uint64_t pairs __attribute__((vector_size(4 * LANES))); /* two lanes in each number */

/* Product of the even lanes of a and b, to 64 bits. */
INLINE pairs even_product(pairs a, pairs b) {
#if defined(__x86_64__) && (defined(__AVX512F__) || defined(__AVX2__))
  pairs r; /* the compiler's own 64-bit product costs three times as much */
  __asm__("vpmuludq %2, %1, %0" : "=v"(r) : "v"(a), "v"(b));
  return r;
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

/* The high 32 bits of x · factor. */
INLINE uvec high_product(uvec x, uint32_t factor) {
  const pairs f = (pairs){0} + factor, all = (pairs)x;
  const pairs even = even_product(all, f), odd = even_product(all >> 32, f);
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "lanes of a pair are assumed little-endian"
#endif
  return (uvec)((even >> 32) | (odd & 0xFFFFFFFF00000000u));
}

INLINE void philox(const uvec counter[4], const uint32_t key[2], uvec out[4]) {
  uvec c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++) {
    const uvec h0 = high_product(c0, 0xD2511F53u), l0 = c0 * 0xD2511F53u;
    const uvec h1 = high_product(c2, 0xCD9E8D57u), l1 = c2 * 0xCD9E8D57u;
    c0 = h1 ^ c1 ^ k0;
    c2 = h0 ^ c3 ^ k1;
    c1 = l1;
    c3 = l0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* [0, 1), exact in float32: the top 24 bits. */
INLINE vec unit(uvec word) {
  return __builtin_convertvector((word >> 8), vec) * (real)(1.0 / 16777216.0);
}
