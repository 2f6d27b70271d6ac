/* Weights in groups: a group's sums leave the matrix unit, meet their scales, and are added up in registers, while the
 * unit has the next group. */
#ifndef ISOTOKEN_CPU_LINEAR_AMX_GROUPS_H
#define ISOTOKEN_CPU_LINEAR_AMX_GROUPS_H

#include "linear_amx_chunks.h"

namespace isotoken {
namespace {
namespace linear {

enum { CHUNK_INPUTS = 32, HALF_PANEL = PANEL / 2, TURNS = 4 };

/* A tile of rows times half a panel. */
struct AmxHalf {
    const char *activations, *weights;
    int64_t row_bytes;
    const AmxJob &ahead; /* what is fetched with each chunk */
};

typedef int32_t AmxBits[AMX_ROWS][HALF_PANEL];

template <int TURN> ISOTOKEN_INLINE void zero_sums() {
    if constexpr (TURN == 0) _tile_zero(0);
    if constexpr (TURN == 1) _tile_zero(1);
    if constexpr (TURN == 2) _tile_zero(2);
    if constexpr (TURN == 3) _tile_zero(3);
}

template <int TURN>
ISOTOKEN_INLINE void load_operands(const char *activations, int64_t row_bytes, const char *weights) {
    if constexpr (TURN % 2 == 0) {
        _tile_loadd(6, weights, STEP_BYTES);
        _tile_loadd(4, activations, row_bytes);
    } else {
        _tile_loadd(7, weights, STEP_BYTES);
        _tile_loadd(5, activations, row_bytes);
    }
}

template <int TURN> ISOTOKEN_INLINE void store_sums(AmxBits &bits) {
    if constexpr (TURN == 0) _tile_stored(0, bits, sizeof bits[0]);
    if constexpr (TURN == 1) _tile_stored(1, bits, sizeof bits[0]);
    if constexpr (TURN == 2) _tile_stored(2, bits, sizeof bits[0]);
    if constexpr (TURN == 3) _tile_stored(3, bits, sizeof bits[0]);
}

/* Put the sums of the chunks of a group on their way to `bits`. */
template <class Form, int TURN>
ISOTOKEN_INLINE void send_group(const AmxHalf &half, int32_t begin, int32_t end, AmxBits &bits) {
    zero_sums<TURN>();
    for (int32_t chunk = begin; chunk < end; chunk++) {
        fetch_ahead(half.ahead, chunk);
        load_operands<TURN>(half.activations + chunk * Form::ROW_BYTES, half.row_bytes,
                            half.weights + (int64_t)chunk * Form::CHUNK_BYTES);
        Form::template multiply<TURN>();
    }
    store_sums<TURN>(bits);
}

template <class Form>
ISOTOKEN_INLINE void send_group_in_turn(const Cut &cut, const AmxHalf &half, int32_t group, AmxBits *bits) {
    const int32_t a_group = cut.op.weights.group / CHUNK_INPUTS, chunks = cut.inputs / CHUNK_INPUTS;
    const int32_t begin = group * a_group, end = begin + a_group < chunks ? begin + a_group : chunks;
    switch (group % TURNS) {
    case 0:
        send_group<Form, 0>(half, begin, end, bits[0]);
        break;
    case 1:
        send_group<Form, 1>(half, begin, end, bits[1]);
        break;
    case 2:
        send_group<Form, 2>(half, begin, end, bits[2]);
        break;
    default:
        send_group<Form, 3>(half, begin, end, bits[3]);
    }
}

template <class Form, int ROWS>
ISOTOKEN_INLINE void take_group(VecF (&totals)[ROWS], const AmxBits &bits, const uint16_t *scales) {
    const VecF scale = load_f16(scales);
    ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
        totals[row] = fma(Form::sum(load_int(bits[row])), scale, totals[row]);
}

/* Sum up all groups into the first ROWS rows of `out`, rows of a panel. */
template <class Form, int ROWS>
__attribute__((noinline)) void sum_groups(const Cut &cut, const AmxHalf &half, const uint16_t *scales, float *out) {
    alignas(64) AmxBits bits[TURNS];
    VecF totals[ROWS];
    ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++) totals[row] = VecF{};
    settle_memory(bits);
    for (int32_t group = 1 - TURNS; group < cut.groups; group++) {
        const int32_t sent = group + TURNS - 1;
        if (sent < cut.groups) send_group_in_turn<Form>(cut, half, sent, bits);
        if (group < 0) continue;
        settle_memory(bits);
        take_group<Form>(totals, bits[group % TURNS], scales + (int64_t)group * PANEL);
        settle_memory(bits);
    }
    ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++) store(out + row * PANEL, totals[row]);
}

template <class Form, bool BOTH>
void run_amx_groups(const Cut &cut, const AmxJob &job, int32_t first, int32_t height, int32_t panel) {
    alignas(64) float totals[AMX_ROWS][PANEL];
    const Finish finish = finish_of(cut.op, panel);
    const uint16_t *scales = (const uint16_t *)cut.op.weights.scales + (int64_t)panel * cut.groups * PANEL;
    AmxJob ahead = job; /* each part fetches some of the streams */
    ahead.streams = job.streams / (BOTH ? 4 : 2);
    for (int i = 0; i < (BOTH ? 2 : 1); i++, first += height) {
        for (int at = 0; at < PANEL; at += HALF_PANEL, ahead.ahead += ahead.streams * ahead.stream_bytes) {
            const AmxHalf half = {job.activations[i], job.weights + at * 4, job.row_bytes, ahead};
            if (height > AMX_ROWS / 2)
                sum_groups<Form, AMX_ROWS>(cut, half, scales + at, totals[0] + at);
            else
                sum_groups<Form, AMX_ROWS / 2>(cut, half, scales + at, totals[0] + at);
        }
        finish_rows(finish, first, job.rows[i] + height - first, totals[first - job.rows[i]], PANEL);
    }
}

} // namespace linear
} // namespace
} // namespace isotoken
#endif
