/* The token of the highest score, a score being logit over temperature plus noise: Gumbel's way to draw. */
#ifndef ISOTOKEN_CPU_SAMPLE_DRAW_H
#define ISOTOKEN_CPU_SAMPLE_DRAW_H

#include "sample_noise.h"
#include "sample_order.h"

namespace isotoken {
namespace {
namespace sampling {

constexpr float NOISE_SPAN = 20.0f; /* a token this far below the best cannot win: noise is within -2.9 and 16.7 */

struct Winner {
    float score;
    int32_t id;

    bool beats(const Winner &other) const { return score > other.score || (score == other.score && id < other.id); }
};

/* Looks for the winner among some blocks. A token's noise, and so the word it is made of, must be high for it to win:
 * words are compared, as integers, with one that the block's best would need, and only those that reach it, a few of a
 * vocabulary, are looked at and have their logarithms taken. That leaves Philox as the work, where no block can be
 * passed over. */
class Scan {
  public:
    Winner winner;

    Scan(const View &of, const Bound &within, const Philox &random)
        : view(of), bound(within), philox(random), winner_margin(margin_of(of.best_y)) {
        winner = {view.best_y + noise_of(philox.word(view.best)), view.best};
        raise();
    }

    __attribute__((noinline)) void blocks(int begin, int end) {
        for (int b = begin; b < end; b++) {
            const float chance = view.weights[b] * factor; /* at most, of a token to win; may be above 1 */
            if (!(chance > LEAST_CHANCE) || !(view.maxima[b] >= bound.from)) continue;
            scan(b, chance < 1 ? (uint32_t)(4294967296.0 * (1.0 - (double)chance)) : 0);
        }
    }

  private:
    static constexpr float LEAST_CHANCE = 0x1p-24f; /* the highest uniform is 1 - 2**-24 */
    static constexpr int COUNTERS = BLOCK / 4;
    static constexpr int VECTORS = COUNTERS / WIDE_LANES;
    static constexpr int TOGETHER = 2;

    const View &view;
    const Bound bound;
    const Philox &philox;
    const double winner_margin;
    float factor;

    /* By how much a score may exceed what y and the exact noise say: roundings of y, of the sum and of weights. */
    static double margin_of(float best_y) { return 1e-4 + 6e-7 * (fabs((double)best_y) + 40); }

    /* For a token to win its noise g = -log(-log(u)) must reach score - y, so 1 - u must be below exp(y - score). */
    void raise() { factor = (float)exp((double)view.best_y - (double)winner.score + winner_margin); }

    void scan(int block, uint32_t threshold) {
        threshold = threshold > 512 ? threshold - 512 : 0; /* words keep their upper 23 bits */
        const int first = block * COUNTERS;
        VecW counters[TOGETHER], words[TOGETHER][4];
        for (int i = 0; i < TOGETHER; i++) counters[i] = counting_wide((uint64_t)(first + i * WIDE_LANES));
        for (int vector = 0; vector < VECTORS; vector += TOGETHER) {
            philox.words(counters, words);
            for (int i = 0; i < TOGETHER; i++) {
                if (any_reaches(words[i], threshold)) look(first + (vector + i) * WIDE_LANES, words[i], threshold);
                counters[i] += TOGETHER * WIDE_LANES;
            }
        }
    }

    __attribute__((noinline)) void look(int counter, const VecW (&words)[4], uint32_t threshold) {
        for (int lane = 0; lane < WIDE_LANES; lane++)
            for (int i = 0; i < 4; i++)
                if ((uint32_t)words[i][lane] >= threshold) consider((counter + lane) * 4 + i, (uint32_t)words[i][lane]);
    }

    void consider(int32_t id, uint32_t word) {
        if (id >= view.row.size || !bound.admits(view.row.logits[id], id)) return;
        const Winner candidate = {view.y_of(view.row.logits[id]) + noise_of(word), id};
        if (!candidate.beats(winner)) return;
        winner = candidate;
        raise();
    }
};

/* The tokens that may win at all: those within the noise's span of the best, and those that min-p keeps. */
inline Bound bound_of_span(const View &view, float min_p) {
    const float span = view.best_y - NOISE_SPAN;
    const float from = lowest_passing(view.best_x, [&](float x) {
        const float y = view.y_of(x);
        return y > span && (min_p <= 0 || exp((double)y - (double)view.best_y) >= (double)min_p);
    });
    return {from, from, 0};
}

} // namespace sampling
} // namespace
} // namespace isotoken
#endif
