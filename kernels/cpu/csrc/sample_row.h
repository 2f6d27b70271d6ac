/* One row of logits: blocks of tokens, their maxima, and what penalties, biases and masks make of them. */
#ifndef ISOTOKEN_CPU_SAMPLE_ROW_H
#define ISOTOKEN_CPU_SAMPLE_ROW_H

#include "sample.h"
#include "sample_vector.h"

namespace isotoken {
namespace {
namespace sampling {

constexpr int BLOCK = 64;        /* tokens whose maximum is known */
constexpr int CHUNK_BLOCKS = 32; /* blocks that one thread handles in one go; sums are cut there, whoever adds up */
constexpr float INFINITE = __builtin_inff();

inline bool is_finite(float x) { return x - x == 0; }

inline int smaller(int a, int b) { return a < b ? a : b; }

inline int num_blocks_of(int num_tokens) { return (num_tokens + BLOCK - 1) / BLOCK; }

/* Logits [size] of one row. Blocks are read whole: the last comes with -inf behind its end. */
struct Row {
    const float *logits;
    int size, num_blocks;
    float tail[BLOCK];

    Row(const float *values, int num_tokens) : logits(values), size(num_tokens), num_blocks(num_blocks_of(num_tokens)) {
        const int start = (num_blocks - 1) * BLOCK;
        for (int i = 0; i < BLOCK; i++) tail[i] = start + i < size ? values[start + i] : -INFINITE;
    }

    const float *block(int index) const { return index == num_blocks - 1 ? tail : logits + (int64_t)index * BLOCK; }
};

/* maxima[b] of blocks [begin, end): the highest logit, NaN where there is one. */
__attribute__((noinline)) void find_maxima(const Row &row, int begin, int end, float *maxima) {
    for (int b = begin; b < end; b++) {
        const float *x = row.block(b);
        VecF most = load(x);
        VecI none = most != most;
        for (int i = LANES; i < BLOCK; i += LANES) {
            const VecF more = load(x + i);
            none |= more != more;
            most = larger(more, most);
        }
        maxima[b] = bits_of(none) ? __builtin_nanf("") : largest(most);
    }
}

/* The first token of a block whose logit is at least x, or NaN where x is. */
inline int first_reaching(const Row &row, int block, float x) {
    const float *values = row.block(block);
    int i = 0;
    while (!(x != x ? values[i] != values[i] : values[i] >= x)) i++;
    return block * BLOCK + i;
}

/* numpy's argmax: the first NaN, else the first of the highest. */
inline int find_best(const Row &row, const float *maxima) {
    int best = 0;
    for (int b = 0; b < row.num_blocks; b++) {
        if (maxima[b] != maxima[b]) return first_reaching(row, b, maxima[b]);
        if (maxima[b] > maxima[best]) best = b;
    }
    return first_reaching(row, best, maxima[best]);
}

/* A stretch of (row, token, value) triples that belong to one row. */
struct Pairs {
    const int32_t *ids;
    const float *values;
    int count;

    static int first_at(const int32_t *rows, int count, int row) {
        int low = 0;
        while (count > 0) {
            const int half = count / 2;
            if (rows[low + half] < row) low += half + 1, count -= half + 1;
            else count = half;
        }
        return low;
    }

    Pairs(const int32_t *rows, const int32_t *all_ids, const float *all_values, int total, int row) {
        const int begin = first_at(rows, total, row), end = first_at(rows, total, row + 1);
        ids = all_ids + begin, values = all_values + begin, count = end - begin;
    }
};

/* What one row's parameters do to its logits before anything is drawn. */
struct Edits {
    Pairs penalties, biases;
    const uint32_t *mask; /* or nullptr */

    Edits(const SampleArgs &args, int row)
        : penalties(args.penalty_rows, args.penalty_ids, args.penalty_values, args.num_penalties, row),
          biases(args.bias_rows, args.bias_ids, args.bias_values, args.num_biases, row),
          mask(args.mask ? args.mask + (int64_t)row * ((args.vocab_size + 31) / 32) : nullptr) {}

    bool none() const { return !penalties.count && !biases.count && !mask; }

    /* Write tokens [begin, end) of the edited row; begin is a multiple of BLOCK. */
    void apply(const float *logits, int begin, int end, float *edited) const {
        memcpy(edited + begin, logits + begin, sizeof(float) * (size_t)(end - begin));
        for (int i = 0; i < penalties.count; i++) {
            const int id = penalties.ids[i];
            if (id < begin || id >= end) continue;
            float &x = edited[id];
            x = x > 0 ? x / penalties.values[i] : x * penalties.values[i];
        }
        for (int i = 0; i < biases.count; i++)
            if (biases.ids[i] >= begin && biases.ids[i] < end) edited[biases.ids[i]] += biases.values[i];
        if (mask) forbid(begin, end, edited);
    }

  private:
    void forbid(int begin, int end, float *edited) const {
        int start = begin;
        for (; start + 32 <= end; start += 32) {
            const uint32_t allowed = mask[start / 32];
            if (allowed == 0xFFFFFFFFu) continue;
            ISOTOKEN_UNROLL for (int i = 0; i < 32; i += LANES) {
                const VecI bits = splat_int((int32_t)(allowed >> i)) >> counting(0);
                store(edited + start + i, (bits & 1) != 0 ? load(edited + start + i) : splat(-INFINITE));
            }
        }
        for (int id = start; id < end; id++)
            if (!(mask[id / 32] >> id % 32 & 1)) edited[id] = -INFINITE;
    }
};

} // namespace sampling
} // namespace
} // namespace isotoken
#endif
