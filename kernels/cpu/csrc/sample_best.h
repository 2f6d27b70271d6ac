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

/* Put heap[at] where it belongs: nobody below its parent, of `n` things of which the lowest, or highest, is first. */
template <class Item, class Before> void sift_down(Item *heap, int64_t n, int64_t at, Before before) {
    const Item item = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && before(heap[child + 1], heap[child]);
        if (!before(heap[child], item)) break;
        heap[at] = heap[child];
    }
    heap[at] = item;
}

template <class Item, class Before> void make_heap(Item *heap, int64_t n, Before before) {
    for (int64_t at = n / 2; at-- > 0;) sift_down(heap, n, at, before);
}

/* The k-th highest of `values` [n], 0 < k <= n; `heap` has room for k. */
inline float kth_highest(const float *values, int n, int k, float *heap) {
    auto lower = [](float a, float b) { return a < b; };
    memcpy(heap, values, sizeof(float) * (size_t)k);
    make_heap(heap, k, lower);
    for (int i = k; i < n; i++)
        if (values[i] > heap[0]) heap[0] = values[i], sift_down(heap, k, 0, lower);
    return heap[0];
}

inline void sort_by_heap(Key *keys, int64_t n) {
    auto later = [](Key a, Key b) { return a > b; };
    make_heap(keys, n, later);
    while (n-- > 1) {
        const Key last = keys[0];
        keys[0] = keys[n], keys[n] = last;
        sift_down(keys, n, 0, later);
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
inline float floor_of_best(const View &view, int k, float *spare) {
    const Row &row = view.row;
    if (k >= row.size || !is_finite(view.best_y)) return -INFINITE;
    if (k <= row.num_blocks / 8) /* as many blocks have their best there */
        return view.reaching(view.y_of(kth_highest(view.maxima, row.num_blocks, k, spare)));
    int64_t low = to_ordinal(-INFINITE), high = to_ordinal(view.best_x);
    while (high - low > 1) { /* at least k tokens are above `low` */
        const int64_t middle = low + (high - low) / 2;
        const int count = count_above(row, view.maxima, 0, row.num_blocks, from_ordinal((int32_t)middle));
        if (count < k) high = middle;
        else low = middle;
        if (count >= k && count <= k + k / 4) break;
    }
    return view.reaching(view.y_of(from_ordinal((int32_t)low)));
}

/* Write the keys of at least the best k tokens, ids rising, and return how many. `keys` has room for all and, behind
 * them, for a sort; `spare` has num_blocks floats. */
inline int64_t gather_best(const View &view, int k, Key *keys, float *spare) {
    const Row &row = view.row;
    const float from = floor_of_best(view, k, spare);
    int64_t n = 0;
    for (int b = 0; b < row.num_blocks; b++) {
        if (view.maxima[b] < from) continue;
        const float *x = row.block(b);
        const int start = b * BLOCK, count = smaller(row.size - start, BLOCK);
        for (int i = 0; i < count; i++) {
            keys[n] = key_of(view.y_of(x[i]), start + i);
            n += !(x[i] < from); /* NaN counts, so that there are always enough */
        }
    }
    return n;
}

/* What top-k keeps: the k best tokens, k below their number. */
inline Bound bound_of_best(const View &view, int k, Key *keys, float *spare) {
    sort_keys(keys, gather_best(view, k, keys, spare));
    return view.ahead_of(y_of(keys[k - 1]), id_of(keys[k - 1]) + 1);
}

} // namespace sampling
} // namespace
} // namespace isotoken
#endif
