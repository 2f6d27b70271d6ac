/* From chunks to outputs: of whole sums, and of weights in groups, whose sums leave the unit, meet their scales, and are
 * added up outside. */
#ifndef ISOTOKEN_CPU_LINEAR_AMX_SUMS_H
#define ISOTOKEN_CPU_LINEAR_AMX_SUMS_H

#include "linear_amx_chunks.h"

namespace isotoken {
namespace {
namespace linear {

enum { CHUNK_INPUTS = 32 }; /* of forms in groups */

/* One or two tiles of rows, of which those from `first` on are wanted: sum up all chunks, and finish. */
template <class Form, bool BOTH>
void run_amx_whole(const Cut &cut, const AmxJob &job, int32_t first, int32_t height, int32_t panel) {
    AmxSums sums[2];
    alignas(64) float row_sums[PANEL];
    run_chunks<Form, BOTH>(job, 0, job.chunks, sums);
    const int32_t *start = cut.op.weights.form == FORM_I8 ? cut.op.weights.sums + panel * PANEL : nullptr;
    for (int i = 0; i < (BOTH ? 2 : 1); i++, first += height)
        for (int32_t row = first; row < job.rows[i] + height; row++) {
            const int32_t *bits = sums[i].bits[row - job.rows[i]];
            for (int v = 0; v < PANEL; v += LANES)
                store(row_sums + v, Form::sum(load_int(bits + v), start ? load_int(start + v) : VecI{}));
            finish_row(cut.op, row, panel, row_sums);
        }
}

typedef float AmxTotals[AMX_ROWS][PANEL];

/* Add a group's sums of a tile of rows, times their scales. */
template <class Form>
ISOTOKEN_INLINE void add_group(AmxTotals &totals, const AmxSums &sums, const uint16_t *scales, const int32_t *starts,
                               int32_t groups, int32_t height, bool first) {
    VecF scale[PANEL / LANES];
    ISOTOKEN_UNROLL for (int v = 0; v < PANEL / LANES; v++) scale[v] = load_f16(scales + v * LANES);
    for (int32_t row = 0; row < height; row++) {
        const VecI start = starts ? splat_int(starts[(int64_t)row * groups]) : VecI{};
        ISOTOKEN_UNROLL for (int v = 0; v < PANEL / LANES; v++) {
            float *total = totals[row] + v * LANES;
            const VecF sum = Form::sum(load_int(sums.bits[row] + v * LANES), start);
            store(total, fma(sum, scale[v], first ? VecF{} : load(total)));
        }
    }
}

template <class Form, bool BOTH>
void run_amx_groups(const Cut &cut, const AmxJob &job, int32_t first, int32_t height, int32_t panel) {
    AmxSums sums[2];
    alignas(64) AmxTotals totals[2];
    const int32_t chunks_a_group = cut.op.weights.group / CHUNK_INPUTS;
    const uint16_t *scales = (const uint16_t *)cut.op.weights.scales + (int64_t)panel * cut.groups * PANEL;
    for (int32_t group = 0, begin = 0; group < cut.groups; group++, begin += chunks_a_group) {
        const int32_t end = begin + chunks_a_group < job.chunks ? begin + chunks_a_group : job.chunks;
        run_chunks<Form, BOTH>(job, begin, end, sums);
        for (int i = 0; i < (BOTH ? 2 : 1); i++) {
            const int32_t *starts = cut.op.weights.form == FORM_I4_A8
                                        ? cut.op.input.sums + (int64_t)job.rows[i] * cut.groups + group
                                        : nullptr;
            add_group<Form>(totals[i], sums[i], scales + group * PANEL, starts, cut.groups, height, group == 0);
        }
    }
    for (int i = 0; i < (BOTH ? 2 : 1); i++, first += height)
        for (int32_t row = first; row < job.rows[i] + height; row++)
            finish_row(cut.op, row, panel, totals[i][row - job.rows[i]]);
}

} // namespace linear
} // namespace
} // namespace isotoken
#endif
