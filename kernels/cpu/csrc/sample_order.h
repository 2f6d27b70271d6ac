/* The order of tokens, by falling logit over temperature, then by rising id; and what lies ahead of a place in it. */
#ifndef ISOTOKEN_CPU_SAMPLE_ORDER_H
#define ISOTOKEN_CPU_SAMPLE_ORDER_H

#include "sample_row.h"

#include <math.h>

namespace isotoken {
namespace {
namespace sampling {

/* Floats as integers of the same order; both zeros are 0. */
inline int32_t to_ordinal(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits >= 0 ? bits : (int32_t)(0x80000000u - (uint32_t)bits);
}

inline float from_ordinal(int32_t ordinal) {
    const uint32_t bits = ordinal >= 0 ? (uint32_t)ordinal : 0x80000000u - (uint32_t)ordinal;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The lowest float that passes a test which every float above it passes too; infinite if `most` does not. */
template <class Test> float lowest_passing(float most, Test passes) {
    if (!passes(most)) return INFINITE;
    int64_t low = to_ordinal(-INFINITE), high = to_ordinal(most);
    while (low < high) {
        const int64_t middle = low + (high - low) / 2; /* low may be negative: rounds towards low or zero, below high */
        if (passes(from_ordinal((int32_t)middle))) high = middle;
        else low = middle + 1;
    }
    return from_ordinal((int32_t)high);
}

/* What lies ahead of a place in the order: logits from `beyond` up, and from `from` up where the id is below `before`.
 * In logits, so that nobody need divide by the temperature, under which neighbours may become equal. */
struct Bound {
    float from = -INFINITE, beyond = -INFINITE;
    int32_t before = 0;

    bool admits(float x, int32_t id) const { return x >= (id < before ? from : beyond); }
};

/* One row as the drawing sees it: y = x / temperature. */
struct View {
    const Row &row;
    const float *maxima; /* [num_blocks] logits */
    float *weights;      /* [num_blocks] exp(y - best_y) of the maxima, within 1e-5 of it or below 1e-30 */
    float temperature, scale; /* scale: log2(e) / temperature */
    double tolerance;         /* a sum of weights is within this part of the truth */
    float best_x, best_y;
    int32_t best; /* the first token of the order */

    View(const Row &of, const float *block_maxima, float *block_weights, float divisor, float best_logit)
        : row(of), maxima(block_maxima), weights(block_weights), temperature(divisor), best_x(best_logit) {
        scale = 1.44269504f / temperature;
        best_y = y_of(best_x);
        tolerance = 4e-6 + 5e-7 * (fabs((double)best_y) + 40); /* y was rounded */
        if (!is_finite(scale)) scale = __FLT_MAX__, tolerance = 2;
        best = 0;
        const float from = reaching(best_y);
        for (int b = 0; b < row.num_blocks; b++) {
            if (!(maxima[b] >= from)) continue;
            best = first_reaching(row, b, from);
            break;
        }
    }

    float y_of(float x) const { return x / temperature; }

    /* The lowest logit whose y is at least, or above, the given one. */
    float reaching(float y) const {
        return lowest_passing(best_x, [&](float x) { return y_of(x) >= y; });
    }
    float exceeding(float y) const {
        return lowest_passing(best_x, [&](float x) { return y_of(x) > y; });
    }

    /* Everything ahead of a place in the order. */
    Bound ahead_of(float y, int32_t id) const {
        return {reaching(y), exceeding(y), id};
    }

    /* exp(y - best_y) */
    VecF weights_of(VecF x) const { return exp2_of((x - best_x) * scale); }

    void weigh(int begin, int end) const {
        for (int b = begin; b < end; b += LANES) /* memory has room for whole vectors */
            store(weights + b, weights_of(load(maxima + b)));
    }
};

} // namespace sampling
} // namespace
} // namespace isotoken
#endif
