/* The few operations on vectors that the sampler needs beside those of simd.h. */
#ifndef ISOTOKEN_CPU_SAMPLE_VECTOR_H
#define ISOTOKEN_CPU_SAMPLE_VECTOR_H

#include "simd.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace isotoken {
namespace {
namespace sampling {

constexpr int WIDE_LANES = LANES / 2; /* integers of 64 bits in a vector */

typedef uint64_t VecW __attribute__((vector_size(LANES * 4)));
typedef uint32_t HalfCount __attribute__((vector_size(LANES * 2), may_alias));

ISOTOKEN_INLINE VecF larger(VecF a, VecF b) { /* b where either is not a number */
#if defined(__AVX512BW__)
    return (VecF)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return a > b ? a : b;
#endif
}

alignas(64) const int32_t COUNTING[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* first, first + 1, ... */
ISOTOKEN_INLINE VecI counting(int32_t first) { return load_int(COUNTING) + first; }

ISOTOKEN_INLINE VecW counting_wide(uint64_t first) {
    return __builtin_convertvector(*(const HalfCount *)COUNTING, VecW) + first;
}

/* Lanes change places with those whose number differs in one bit. */
ISOTOKEN_INLINE VecF swapped(VecF value, int32_t bit) {
#if defined(__clang__)
    VecF other = value;
    for (int lane = 0; lane < LANES; lane++) other[lane] = value[lane ^ bit];
    return other;
#else
    return __builtin_shuffle(value, counting(0) ^ bit);
#endif
}

ISOTOKEN_INLINE float sum_of_lanes(VecF value) {
    ISOTOKEN_UNROLL for (int bit = LANES / 2; bit; bit /= 2) value += swapped(value, bit);
    return value[0];
}

ISOTOKEN_INLINE float largest(VecF value) {
    ISOTOKEN_UNROLL for (int bit = LANES / 2; bit; bit /= 2) value = larger(value, swapped(value, bit));
    return value[0];
}

/* A bit for each lane of a comparison's result. */
ISOTOKEN_INLINE uint32_t bits_of(VecI flags) {
#if defined(__AVX512BW__)
    return _mm512_test_epi32_mask((__m512i)flags, (__m512i)flags);
#elif defined(__AVX2__)
    return (uint32_t)_mm256_movemask_ps((__m256)flags);
#elif defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps((__m128)flags);
#else
    uint32_t bits = 0;
    for (int lane = 0; lane < LANES; lane++) bits |= (uint32_t)(flags[lane] & 1) << lane;
    return bits;
#endif
}

/* Products of the low halves of each lane. */
ISOTOKEN_INLINE VecW multiply(VecW a, VecW b) {
#if defined(__AVX512BW__)
    return (VecW)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (VecW)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (VecW)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

/* Whether the low half of any lane of any of four vectors is at least the threshold. */
ISOTOKEN_INLINE bool any_reaches(const VecW (&words)[4], uint32_t threshold) {
#if defined(__AVX512BW__)
    const __m512i some = _mm512_max_epu32((__m512i)words[0], (__m512i)words[1]);
    const __m512i rest = _mm512_max_epu32((__m512i)words[2], (__m512i)words[3]);
    return _mm512_mask_cmpge_epu32_mask(0x5555, _mm512_max_epu32(some, rest), _mm512_set1_epi32((int32_t)threshold));
#elif defined(__AVX2__)
    const __m256i some = _mm256_max_epu32((__m256i)words[0], (__m256i)words[1]);
    const __m256i rest = _mm256_max_epu32((__m256i)words[2], (__m256i)words[3]);
    const __m256i most = _mm256_max_epu32(some, rest), least = _mm256_set1_epi32((int32_t)threshold);
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_max_epu32(most, least), most)) & 0x0F0F0F0F;
#else
    bool reached = false;
    for (const VecW &word : words)
        for (int lane = 0; lane < WIDE_LANES; lane++) reached |= (uint32_t)word[lane] >= threshold;
    return reached;
#endif
}

/* 2^t of t <= 0, within 3e-7 of it; below -126 as at -126. */
ISOTOKEN_INLINE VecF exp2_of(VecF t) {
    const VecF magic = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    t = larger(t, splat(-126.0f));
    const VecF shifted = t + magic, r = t - (shifted - magic);
    VecF p = splat(1.5403530e-4f); /* Taylor's series is enough between +-1/2 */
    p = fma(p, r, splat(1.3333558e-3f));
    p = fma(p, r, splat(9.6181291e-3f));
    p = fma(p, r, splat(5.5504109e-2f));
    p = fma(p, r, splat(2.4022651e-1f));
    p = fma(p, r, splat(6.9314718e-1f));
    p = fma(p, r, splat(1.0f));
    return (VecF)((VecU)p + ((VecU)shifted << 23)); /* of the sum the integer is what stays */
}

} // namespace sampling
} // namespace
} // namespace isotoken
#endif
