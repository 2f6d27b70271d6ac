/* What lies between the two halves of a gated layer. */
#ifndef ISOTOKEN_CPU_ACTIVATION_H
#define ISOTOKEN_CPU_ACTIVATION_H

#include "program.h"
#include "vector_math.h"

namespace isotoken {
namespace {

inline VecF sigmoid_times(VecF x, VecF steepness) { return x / (splat(1.0f) + vexp(-(x * steepness))); }

/* x (1 + tanh(u)) / 2 is x / (1 + e^-2u), which loses nothing where tanh is near -1. */
inline VecF gelu_tanh(VecF x) {
    const float TWICE_ROOT = 1.5957691216057308f; /* 2 sqrt(2 / pi) */
    return sigmoid_times(x, fma(x * x, splat(0.044715f * TWICE_ROOT), splat(TWICE_ROOT)));
}

/* x (1 + erf(x / sqrt(2))) / 2, with erfc(z) = t (a1 + t (a2 + ...)) e^-z^2 within 1.5e-7 (Abramowitz and Stegun
 * 7.1.26). */
inline VecF gelu(VecF x) {
    const VecF z = vabs(x) * splat(0.70710678118654752f);
    const VecF t = splat(1.0f) / fma(z, splat(0.3275911f), splat(1.0f));
    VecF y = fma(t, splat(1.061405429f), splat(-1.453152027f));
    y = fma(y, t, splat(1.421413741f));
    y = fma(y, t, splat(-0.284496736f));
    y = fma(y, t, splat(0.254829592f));
    const VecF outside = x * splat(0.5f) * (y * t * vexp(-(z * z)));
    return select(x < splat(0.0f), outside, x - outside);
}

inline VecF activate(int32_t activation, VecF x) {
    switch (activation) {
    case ACT_GELU:
        return gelu(x);
    case ACT_GELU_TANH:
        return gelu_tanh(x);
    case ACT_RELU:
        return vmax(splat(0.0f), x); /* in this order x stays what is not a number */
    default:
        return sigmoid_times(x, splat(1.0f)); /* SiLU */
    }
}

} // namespace
} // namespace isotoken
#endif
