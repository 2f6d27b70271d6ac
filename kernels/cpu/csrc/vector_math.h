/* Arithmetic on vectors that no instruction does: exponentials, sums across lanes, the ends of rows. */
#ifndef ISOTOKEN_CPU_VECTOR_MATH_H
#define ISOTOKEN_CPU_VECTOR_MATH_H

#include "simd.h"

namespace isotoken {
namespace {

/* The first `count` floats, zeros in the lanes beyond; count may be anything. */
inline VecF load_some(const float *from, int count) {
    if (count >= LANES)
        return load(from);
    alignas(64) float padded[LANES] = {};
    if (count > 0)
        memcpy(padded, from, count * sizeof(float));
    return load(padded);
}

inline void store_some(float *to, VecF values, int count) {
    if (count >= LANES) {
        store(to, values);
    } else if (count > 0) {
        alignas(64) float padded[LANES];
        store(padded, values);
        memcpy(to, padded, count * sizeof(float));
    }
}

inline VecF select(VecI mask, VecF yes, VecF no) { return mask ? yes : no; }

/* Halves are added to halves, so the order is the same wherever LANES is. */
inline float sum_of_lanes(VecF x) {
    alignas(64) float lanes[LANES];
    store(lanes, x);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

inline float largest_lane(VecF x) {
    alignas(64) float lanes[LANES];
    store(lanes, x);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i)
            lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    return lanes[0];
}

inline int32_t largest_lane(VecI x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epi32((__m512i)x);
#else
    int32_t largest = x[0];
    for (int i = 1; i < LANES; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
#endif
}

inline int32_t sum_of_lanes(VecI x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_epi32((__m512i)x);
#else
    int32_t sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += x[i];
    return sum;
#endif
}

const float EXP_LOWEST = -87.0f; /* below it exp(x) stays at exp(-87), about 1.6e-38 */
const float EXP_HIGHEST = 88.0f;

/* e^x within 1e-7 of it, relative: 2^n e^r with n whole and |r| <= ln(2) / 2, e^r by a polynomial (Cephes). exp(0) is 1
 * exactly. */
inline VecF vexp(VecF x) {
    x = vmin(splat(EXP_HIGHEST), vmax(splat(EXP_LOWEST), x)); /* in this order x stays what is not a number */
    const VecI n = to_int(x * splat(1.44269504f));
    VecF r = fma(to_float(n), splat(-0.693359375f), x); /* ln(2) in two parts, the first short */
    r = fma(to_float(n), splat(2.12194440e-4f), r);
    VecF y = splat(1.9875691500e-4f);
    y = fma(y, r, splat(1.3981999507e-3f));
    y = fma(y, r, splat(8.3334519073e-3f));
    y = fma(y, r, splat(4.1665795894e-2f));
    y = fma(y, r, splat(1.6666665459e-1f));
    y = fma(y, r, splat(5.0000001201e-1f));
    y = fma(y, r * r, r + splat(1.0f));
    return y * (VecF)((n + 127) << 23);
}

inline float exp_of(float x) { return vexp(splat(x))[0]; }

/* Within 3e-7 relative: an odd polynomial (Cephes) near 0, else 1 - 2 / (e^2|x| + 1) with the sign of x. */
inline VecF vtanh(VecF x) {
    const VecF square = x * x;
    VecF y = splat(-5.70498872745e-3f);
    y = fma(y, square, splat(2.06390887954e-2f));
    y = fma(y, square, splat(-5.37397155531e-2f));
    y = fma(y, square, splat(1.33314422036e-1f));
    y = fma(y, square, splat(-3.33332819422e-1f));
    const VecF near = fma(y, square * x, x);
    const VecF size = vabs(x);
    const VecF far = splat(1.0f) - splat(2.0f) / (vexp(size + size) + splat(1.0f));
    const VecF signed_far = (VecF)((VecI)far | ((VecI)x & (int32_t)0x80000000));
    return select(size < splat(0.625f), near, signed_far);
}

} // namespace
} // namespace isotoken

#endif
