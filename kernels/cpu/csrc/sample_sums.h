/* Sums over a row of what exp makes of it, and counts. */
#ifndef ISOTOKEN_CPU_SAMPLE_SUMS_H
#define ISOTOKEN_CPU_SAMPLE_SUMS_H

#include "sample_order.h"

#include <math.h>

namespace isotoken {
namespace {
namespace sampling {

constexpr float WEIGHTLESS = 1e-13f; /* blocks of such a weight are lost in a sum within 1e-6 */
constexpr float NOTHING = 1e-28f;    /* and of such a one in a sum in double precision */
constexpr int RUN_BLOCKS = 8;        /* blocks whose weights are added up in single precision */

/* The weights of a block's tokens from `least` up. */
ISOTOKEN_INLINE VecF add_weights(const View &view, const float *x, float least, VecF sums) {
    ISOTOKEN_UNROLL for (int i = 0; i < BLOCK; i += LANES) {
        const VecF values = load(x + i);
        sums += view.weights_of(values >= least ? values : splat(-INFINITE));
    }
    return sums;
}

ISOTOKEN_INLINE VecF add_block(const View &view, const Bound &bound, int block, VecF sums) {
    const float *x = view.row.block(block);
    const int start = block * BLOCK;
    float least = start < bound.before ? bound.from : bound.beyond, admitted[BLOCK];
    if (start < bound.before && bound.before < start + BLOCK) { /* the block in which ties are cut */
        for (int i = 0; i < BLOCK; i++) admitted[i] = bound.admits(x[i], start + i) ? x[i] : -INFINITE;
        x = admitted, least = -INFINITE;
    }
    return add_weights(view, x, least, sums);
}

/* The sum of exp(y - best_y) over the tokens of one chunk that a bound admits, within 1e-6 of the row's sum. */
__attribute__((noinline)) double sum_chunk(const View &view, const Bound &bound, int chunk) {
    const int end = smaller((chunk + 1) * CHUNK_BLOCKS, view.row.num_blocks);
    double sum = 0;
    for (int b = chunk * CHUNK_BLOCKS; b < end;) {
        VecF sums = {};
        for (const int next = smaller(b + RUN_BLOCKS, end); b < next; b++)
            if (view.maxima[b] >= bound.from && view.weights[b] > WEIGHTLESS) sums = add_block(view, bound, b, sums);
        sum += sum_of_lanes(sums);
    }
    return sum;
}

/* The same in double precision, of the whole row: for decisions that hang on the last digits. */
inline double sum_exactly(const View &view, const Bound &bound) {
    double sum = 0;
    for (int b = 0; b < view.row.num_blocks; b++) {
        if (!(view.maxima[b] >= bound.from && view.weights[b] > NOTHING)) continue;
        const float *x = view.row.block(b);
        for (int i = 0; i < BLOCK; i++)
            if (bound.admits(x[i], b * BLOCK + i)) sum += exp((double)view.y_of(x[i]) - (double)view.best_y);
    }
    return sum;
}

ISOTOKEN_INLINE int sum_of_counts(VecI counts) {
    int sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += counts[lane];
    return sum;
}

/* How many values are above x. */
inline int count_above(const float *values, int n, float x) {
    VecI counts = {};
    int i = 0, rest = 0;
    for (; i + LANES <= n; i += LANES) counts -= load(values + i) > x;
    for (; i < n; i++) rest += values[i] > x;
    return sum_of_counts(counts) + rest;
}

/* How many logits of blocks [begin, end) are above x. */
__attribute__((noinline)) int count_above(const Row &row, const float *maxima, int begin, int end, float x) {
    VecI counts = {};
    for (int b = begin; b < end; b++) {
        if (!(maxima[b] > x)) continue;
        const float *values = row.block(b);
        ISOTOKEN_UNROLL for (int i = 0; i < BLOCK; i += LANES) counts -= load(values + i) > x;
    }
    return sum_of_counts(counts);
}

} // namespace sampling
} // namespace
} // namespace isotoken
#endif
