/* Vectors of the width of one instruction set. A unit is compiled once for each set with its own flags, and everything
 * here has internal linkage: the linker must never merge a function of one set with that of another. For the same
 * reason units use no inline functions or templates of the standard headers.
 *
 * Every function gives the same bits at each call, whatever surrounds it (-ffp-contract=off): sums have one order.
 */
#ifndef ISOTOKEN_CPU_SIMD_H
#define ISOTOKEN_CPU_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define ISOTOKEN_INLINE static inline __attribute__((always_inline))
#define ISOTOKEN_UNROLL _Pragma("GCC unroll 32")

namespace isotoken {
namespace {

#if defined(__AVX512BW__)
enum { LANES = 16, VECTOR_REGISTERS = 32 };
#elif defined(__AVX2__)
enum { LANES = 8, VECTOR_REGISTERS = 16 };
#else
enum { LANES = 4, VECTOR_REGISTERS = 16 };
#endif

typedef float VecF __attribute__((vector_size(LANES * 4)));
typedef int32_t VecI __attribute__((vector_size(LANES * 4)));
typedef uint32_t VecU __attribute__((vector_size(LANES * 4)));
typedef int16_t VecS __attribute__((vector_size(LANES * 4)));    /* twice as many lanes */
typedef int8_t VecB __attribute__((vector_size(LANES * 4)));     /* four times as many lanes */
typedef uint16_t HalfVecU __attribute__((vector_size(LANES * 2))); /* as many lanes */

/* As they may lie in memory: anywhere, and among anything. */
typedef VecF LooseF __attribute__((aligned(4), may_alias));
typedef VecI LooseI __attribute__((aligned(1), may_alias));
typedef HalfVecU LooseHalfU __attribute__((aligned(2), may_alias));

ISOTOKEN_INLINE VecF load(const float *from) { return *(const LooseF *)from; }
ISOTOKEN_INLINE void store(float *to, VecF v) { *(LooseF *)to = v; }
ISOTOKEN_INLINE VecI load_int(const void *from) { return *(const LooseI *)from; }
ISOTOKEN_INLINE void store_int(void *to, VecI v) { *(LooseI *)to = v; }
ISOTOKEN_INLINE VecF splat(float x) { return x - VecF{}; }
ISOTOKEN_INLINE VecI splat_int(int32_t x) { return x - VecI{}; }

ISOTOKEN_INLINE int32_t load_dword(const void *from) {
    int32_t x;
    memcpy(&x, from, sizeof x);
    return x;
}

ISOTOKEN_INLINE VecF vmax(VecF a, VecF b) { return a > b ? a : b; } /* b where either is not a number */
ISOTOKEN_INLINE VecI larger_int(VecI a, VecI b) { return a > b ? a : b; }
ISOTOKEN_INLINE VecF vmin(VecF a, VecF b) { return a < b ? a : b; }
ISOTOKEN_INLINE VecF vabs(VecF v) { return (VecF)((VecI)v & 0x7fffffff); }

/* a * b + c, rounded once where the instruction set can. */
ISOTOKEN_INLINE VecF fma(VecF a, VecF b, VecF c) {
#if defined(__AVX512F__)
    return (VecF)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (VecF)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_FEATURE_FMA)
    ISOTOKEN_UNROLL for (int i = 0; i < LANES; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#else
    return a * b + c;
#endif
}

ISOTOKEN_INLINE VecF to_float(VecI v) { return __builtin_convertvector(v, VecF); }

/* Rounded to the nearest, ties to even; |v| < 2^22. */
ISOTOKEN_INLINE VecI to_int(VecF v) {
#if defined(__AVX512F__)
    return (VecI)_mm512_cvtps_epi32((__m512)v);
#elif defined(__AVX2__)
    return (VecI)_mm256_cvtps_epi32((__m256)v);
#else
    return (VecI)(v + 12582912.0f) - 0x4b400000; /* 1.5 * 2^23: what is behind the point falls away */
#endif
}

/* bfloat16: the upper half of a float, rounded to the nearest, ties to even; what is not a number stays so. */
ISOTOKEN_INLINE float from_bf16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

ISOTOKEN_INLINE uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : bits >> 16 | 0x40);
}

ISOTOKEN_INLINE VecF load_bf16(const uint16_t *from) {
    return (VecF)(__builtin_convertvector(*(const LooseHalfU *)from, VecU) << 16);
}

ISOTOKEN_INLINE void store_bf16(uint16_t *to, VecF v) {
#if defined(__AVX512BF16__)
    *(LooseHalfU *)to = (HalfVecU)_mm512_cvtneps_pbh((__m512)v);
#else
    const VecU bits = (VecU)v, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    *(LooseHalfU *)to = __builtin_convertvector(v == v ? rounded : bits >> 16 | 0x40, HalfVecU);
#endif
}

/* float16 to float: exact; infinities and what is not a number do not occur. */
ISOTOKEN_INLINE float from_f16(uint16_t x) {
    uint32_t bits = (uint32_t)(x & 0x7fff) << 13, sign = (uint32_t)(x & 0x8000) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f; /* the exponents' difference; right for subnormals too */
    memcpy(&bits, &value, sizeof bits);
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

ISOTOKEN_INLINE VecF load_f16(const uint16_t *from) {
#if defined(__AVX512F__)
    return (VecF)_mm512_cvtph_ps((__m256i) * (const LooseHalfU *)from);
#elif defined(__F16C__)
    return (VecF)_mm256_cvtph_ps((__m128i) * (const LooseHalfU *)from);
#else
    VecU half = __builtin_convertvector(*(const LooseHalfU *)from, VecU);
    VecU size = (VecU)((VecF)((half & 0x7fff) << 13) * 0x1p112f);
    return (VecF)(size | (half & 0x8000) << 16);
#endif
}

/* The lower and the upper of the pair of bfloat16 in each lane. */
ISOTOKEN_INLINE VecF low_bf16(VecI pairs) { return (VecF)(pairs << 16); }
ISOTOKEN_INLINE VecF high_bf16(VecI pairs) { return (VecF)(pairs & (int32_t)0xffff0000); }

/* The pair again, of floats that are bfloat16 already. */
ISOTOKEN_INLINE VecI pair_bf16(VecF low, VecF high) {
    return ((VecI)high & (int32_t)0xffff0000) | (VecI)((VecU)low >> 16);
}

/* acc + the sum of the products of two pairs of bfloat16. */
ISOTOKEN_INLINE VecF dot_bf16(VecF acc, VecI a, VecI b) {
#if defined(__AVX512BF16__)
    return (VecF)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
#else
    return fma(high_bf16(a), high_bf16(b), fma(low_bf16(a), low_bf16(b), acc));
#endif
}

/* acc + the sum of four products, exactly: bytes of u without a sign, of s with one. */
ISOTOKEN_INLINE VecI dot_u8s8(VecI acc, VecI u, VecI s) {
#if defined(__AVX512VNNI__)
    /* gcc 12 copies and spills the accumulators of the intrinsic */
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(s));
    return acc;
#else
    VecS even_u = (VecS)u & 0xff, odd_u = (VecS)((VecI)u >> 8) & 0xff;
    VecS even_s = (VecS)((VecS)s << 8) >> 8, odd_s = (VecS)s >> 8;
#if defined(__AVX512BW__)
    VecI even = (VecI)_mm512_madd_epi16((__m512i)even_u, (__m512i)even_s);
    VecI odd = (VecI)_mm512_madd_epi16((__m512i)odd_u, (__m512i)odd_s);
    return acc + even + odd;
#elif defined(__AVX2__)
    VecI even = (VecI)_mm256_madd_epi16((__m256i)even_u, (__m256i)even_s);
    VecI odd = (VecI)_mm256_madd_epi16((__m256i)odd_u, (__m256i)odd_s);
    return acc + even + odd;
#else
    VecI even = (VecI)(even_u * even_s), odd = (VecI)(odd_u * odd_s); /* 255 * 128 is less than 2^15 */
    return acc + (even << 16 >> 16) + (even >> 16) + (odd << 16 >> 16) + (odd >> 16);
#endif
#endif
}

ISOTOKEN_INLINE void prefetch(const void *address) { __builtin_prefetch(address, 0, 3); }
ISOTOKEN_INLINE void prefetch_far(const void *address) { __builtin_prefetch(address, 0, 2); } /* second cache alone */

} // namespace
} // namespace isotoken
#endif
