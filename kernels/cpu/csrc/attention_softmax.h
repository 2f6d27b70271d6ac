/* A row's softmax over one chunk: scores become weights, relative to the largest score so far. */
#ifndef ISOTOKEN_CPU_ATTENTION_SOFTMAX_H
#define ISOTOKEN_CPU_ATTENTION_SOFTMAX_H

#include "attention_tile.h"

namespace isotoken {
namespace {

const float UNSEEN = -1e30f; /* the score of a position that a row does not see: its weight is exactly 0 */

ISOTOKEN_INLINE VecI lane_numbers() {
    VecI lanes;
    for (int i = 0; i < LANES; i++)
        lanes[i] = i;
    return lanes;
}

/* Put UNSEEN where a vector of scores, whose first is `place`, lies outside begin ... end. */
ISOTOKEN_INLINE VecF only_seen(VecF scores, int place, int begin, int end) {
    if (begin <= place && place + LANES <= end)
        return scores;
    const VecI places = lane_numbers() + place;
    return select((places >= begin) & (places < end), scores, splat(UNSEEN));
}

/* Scale and cap the scores that a row sees; the rest become UNSEEN. Returns the largest. Places count from the chunk's
 * first token; begin and end are what the row sees, from and to the pieces around that. */
template <class Form>
inline float settle_scores(TileScratch &tile, const Chunk &chunk, int row, float cap, int begin, int end, int from,
                           int to) {
    float *scores = tile.scores[row];
    VecF largest = splat(UNSEEN);
    for (int place = from; place < to; place += LANES) {
        VecF score = load(scores + place);
        if (Form::HAS_SCALES)
            score *= splat(tile.rows[row].query_scale) *
                     load(chunk.key_scales[place / TOKENS_A_BLOCK] + place % TOKENS_A_BLOCK);
        if (cap != 0.0f)
            score = splat(cap) * vtanh(score / splat(cap));
        score = only_seen(score, place, begin, end);
        store(scores + place, score);
        largest = vmax(score, largest); /* what is not a number is no measure for the others */
    }
    return largest_lane(largest);
}

/* exp(score - largest) into the row's weights, and their sum to its sums. */
template <class Form>
inline void weigh_scores(TileScratch &tile, const Chunk &chunk, int row, float largest, int from, int to) {
    const float *scores = tile.scores[row];
    VecF sum = load(tile.rows[row].sums);
    for (int place = from; place < to; place += LANES) {
        const VecF x = load(scores + place) - splat(largest);
        VecF weight = select(x <= splat(EXP_LOWEST), VecF{}, vexp(x)); /* so far down, and unseen: exactly 0 */
        sum += weight;
        if (Form::HAS_SCALES) { /* those of tokens that are not there may be anything, not finite even */
            const VecF scaled = weight * load(chunk.value_scales[place / TOKENS_A_BLOCK] + place % TOKENS_A_BLOCK);
            weight = select(weight == VecF{}, VecF{}, scaled);
        }
        Form::store_weights(tile.weights[row], place, weight);
    }
    store(tile.rows[row].sums, sum);
}

inline void scale_state(TileScratch &tile, int row, float factor, int dim) {
    RowState &state = tile.rows[row];
    store(state.sums, load(state.sums) * splat(factor));
    for (int i = 0; i < dim; i += LANES)
        store(tile.outputs[row] + i, load(tile.outputs[row] + i) * splat(factor));
}

template <class Form>
inline void soften_row(TileScratch &tile, const Chunk &chunk, int row, float cap, int dim) {
    RowState &state = tile.rows[row];
    const int size = chunk.num_pieces * TOKENS_A_BLOCK;
    const int begin = state.begin > chunk.begin ? state.begin - chunk.begin : 0;
    const int end = state.end - chunk.begin < size ? state.end - chunk.begin : size;
    if (begin >= end) {
        for (int place = 0; place < size; place += LANES)
            Form::store_weights(tile.weights[row], place, VecF{});
        return;
    }
    const int from = begin / TOKENS_A_BLOCK * TOKENS_A_BLOCK;
    const int to = (end + TOKENS_A_BLOCK - 1) / TOKENS_A_BLOCK * TOKENS_A_BLOCK;
    for (int place = 0; place < from; place += LANES)
        Form::store_weights(tile.weights[row], place, VecF{});
    for (int place = to; place < size; place += LANES)
        Form::store_weights(tile.weights[row], place, VecF{});
    const float found = settle_scores<Form>(tile, chunk, row, cap, begin, end, from, to);
    if (found > state.largest) {
        scale_state(tile, row, exp_of(state.largest - found), dim);
        state.largest = found;
    }
    weigh_scores<Form>(tile, chunk, row, state.largest, from, to);
}

} // namespace
} // namespace isotoken

#endif
