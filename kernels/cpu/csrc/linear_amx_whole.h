/* Weights that are summed up over all inputs within the matrix unit. */
#ifndef ISOTOKEN_CPU_LINEAR_AMX_WHOLE_H
#define ISOTOKEN_CPU_LINEAR_AMX_WHOLE_H

#include "linear_amx_chunks.h"

namespace isotoken {
namespace {
namespace linear {

/* What the unit has summed up of one tile of rows. */
struct AmxSums {
    alignas(64) int32_t bits[AMX_ROWS][PANEL];
};

ISOTOKEN_INLINE void store_first(AmxSums &sums) {
    _tile_stored(0, sums.bits[0], sizeof sums.bits[0]);
    _tile_stored(1, sums.bits[0] + PANEL / 2, sizeof sums.bits[0]);
}

ISOTOKEN_INLINE void store_second(AmxSums &sums) {
    _tile_stored(2, sums.bits[0], sizeof sums.bits[0]);
    _tile_stored(3, sums.bits[0] + PANEL / 2, sizeof sums.bits[0]);
}

/* Sum up all chunks. */
template <class Form, bool BOTH> ISOTOKEN_INLINE void run_chunks(const AmxJob &job, AmxSums *sums) {
    settle_memory(sums);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const char *weights = job.weights, *ahead = job.ahead;
    for (int32_t chunk = 0; chunk < job.chunks; chunk++) {
        for (int32_t line = 0; line < job.lines_ahead; line++, ahead += 64) prefetch_far(ahead);
        _tile_loadd(6, weights, STEP_BYTES);
        _tile_loadd(4, job.activations[0] + chunk * Form::ROW_BYTES, job.row_bytes);
        _tile_loadd(7, weights + 64, STEP_BYTES);
        Form::multiply_first();
        if (BOTH) {
            _tile_loadd(5, job.activations[1] + chunk * Form::ROW_BYTES, job.row_bytes);
            Form::multiply_second();
        }
        weights += Form::CHUNK_BYTES;
    }
    store_first(sums[0]);
    if (BOTH) store_second(sums[1]);
    settle_memory(sums);
}

/* One or two tiles of rows, of which those from `first` on are wanted: sum up all chunks, and finish. */
template <class Form, bool BOTH>
void run_amx_whole(const Cut &cut, const AmxJob &job, int32_t first, int32_t height, int32_t panel) {
    AmxSums sums[2];
    run_chunks<Form, BOTH>(job, sums);
    const int32_t *start = cut.op.weights.form == FORM_I8 ? cut.op.weights.sums + panel * PANEL : nullptr;
    VecI starts[PANEL / LANES] = {};
    for (int v = 0; v < PANEL / LANES; v++)
        if (start) starts[v] = load_int(start + v * LANES);
    const Finish finish = finish_of(cut.op, panel);
    for (int i = 0; i < (BOTH ? 2 : 1); i++, first += height) {
        alignas(64) float floats[AMX_ROWS][PANEL];
        for (int32_t row = 0; row < height; row++)
            for (int v = 0; v < PANEL / LANES; v++)
                store(floats[row] + v * LANES, Form::sum(load_int(sums[i].bits[row] + v * LANES), starts[v]));
        finish_rows(finish, first, job.rows[i] + height - first, floats[first - job.rows[i]], PANEL);
    }
}

} // namespace linear
} // namespace
} // namespace isotoken
#endif
