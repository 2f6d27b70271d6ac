/* The best k tokens of a row in order. */
#ifndef ISOTOKEN_CPU_SAMPLE_BEST_H
#define ISOTOKEN_CPU_SAMPLE_BEST_H

#include "sample_sums.h"

namespace isotoken {
namespace {
namespace sampling {

/* A token as one integer that sorts in the order: falling y, then rising id. */
typedef uint64_t Key;

inline Key key_of(float y, int32_t id) {
    const uint32_t rising = (uint32_t)to_ordinal(y) ^ 0x80000000u;
    return (uint64_t)~rising << 32 | (uint32_t)id;
}

inline int32_t id_of(Key key) { return (int32_t)(uint32_t)key; }

inline float y_of(Key key) { return from_ordinal((int32_t)(~(uint32_t)(key >> 32) ^ 0x80000000u)); }

/* Put heap[at] below those that are larger. */
inline void sift_down(Key *heap, int64_t n, int64_t at) {
    const Key item = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && heap[child + 1] > heap[child];
        if (heap[child] <= item) break;
        heap[at] = heap[child];
    }
    heap[at] = item;
}

inline void sort_by_heap(Key *keys, int64_t n) {
    for (int64_t at = n / 2; at-- > 0;) sift_down(keys, n, at);
    while (n-- > 1) {
        const Key last = keys[0];
        keys[0] = keys[n], keys[n] = last;
        sift_down(keys, n, 0);
    }
}

/* Sort n keys of tokens that stand with their ids rising, by their upper halves. Uses as much memory behind them. */
inline void sort_by_radix(Key *keys, int64_t n) {
    constexpr int BITS = 11;
    Key *from = keys, *to = keys + n;
    for (int shift = 32; shift < 64; shift += BITS) {
        int64_t places[1 << BITS] = {};
        for (int64_t i = 0; i < n; i++) places[from[i] >> shift & ((1 << BITS) - 1)]++;
        int64_t sum = 0;
        for (int64_t &place : places) {
            const int64_t count = place;
            place = sum, sum += count;
        }
        for (int64_t i = 0; i < n; i++) to[places[from[i] >> shift & ((1 << BITS) - 1)]++] = from[i];
        Key *const sorted = to;
        to = from, from = sorted;
    }
    memcpy(keys, from, sizeof(Key) * (size_t)n); /* three passes: they ended in the other half */
}

inline void sort_keys(Key *keys, int64_t n) {
    if (n < 512) sort_by_heap(keys, n);
    else sort_by_radix(keys, n);
}

/* A logit that the best k tokens reach, and not many more. */
inline float floor_of_best(const View &view, int k) {
    const Row &row = view.row;
    if (k >= row.size || !is_finite(view.best_y)) return -INFINITE;
    const bool by_blocks = k <= row.num_blocks / 2; /* where that many blocks have their best, so many tokens are */
    int64_t low = to_ordinal(-INFINITE), high = to_ordinal(view.best_x);
    while (high - low > 1) { /* at least k are above `low` */
        const int64_t middle = low + (high - low) / 2;
        const float x = from_ordinal((int32_t)middle);
        const int count = by_blocks ? count_above(view.maxima, row.num_blocks, x)
                                    : count_above(row, view.maxima, 0, row.num_blocks, x);
        if (count < k) high = middle;
        else low = middle;
        if (count >= k && count <= k + k / 4) break;
    }
    return view.reaching(view.y_of(from_ordinal((int32_t)low)));
}

/* Write the keys of at least the best k tokens, ids rising, and return how many. `keys` has room for all and, behind
 * them, for a sort. */
inline int64_t gather_best(const View &view, int k, Key *keys) {
    const Row &row = view.row;
    const float from = floor_of_best(view, k);
    int64_t n = 0;
    for (int b = 0; b < row.num_blocks; b++) {
        if (view.maxima[b] < from) continue;
        const float *x = row.block(b);
        const int start = b * BLOCK;
        for (int i = 0; i < smaller(row.size - start, BLOCK); i += LANES) {
            uint32_t bits = bits_of(~(load(x + i) < from)); /* NaN counts, so that there are always enough */
            for (; bits; bits &= bits - 1) {
                const int at = i + __builtin_ctz(bits);
                if (start + at < row.size) keys[n++] = key_of(view.y_of(x[at]), start + at);
            }
        }
    }
    return n;
}

/* What top-k keeps: the k best tokens, k below their number. */
inline Bound bound_of_best(const View &view, int k, Key *keys) {
    sort_keys(keys, gather_best(view, k, keys));
    return view.ahead_of(y_of(keys[k - 1]), id_of(keys[k - 1]) + 1);
}

} // namespace sampling
} // namespace
} // namespace isotoken
#endif
