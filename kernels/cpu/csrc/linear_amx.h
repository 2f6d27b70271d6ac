/* A linear layer in the matrix unit of AMX: which tiles of rows go together, and what is fetched meanwhile. */
#ifndef ISOTOKEN_CPU_LINEAR_AMX_H
#define ISOTOKEN_CPU_LINEAR_AMX_H

#include "linear_amx_groups.h"
#include "linear_amx_whole.h"

namespace isotoken {
namespace {
namespace linear {

enum { MOST_PARTS = 4 }; /* of the next panel, which as many pairs of tiles fetch */

template <class Form, bool BOTH>
void run_amx(const Cut &cut, const AmxJob &job, int32_t first, int32_t height, int32_t panel) {
    if constexpr (Form::GROUPED)
        run_amx_groups<Form, BOTH>(cut, job, first, height, panel);
    else
        run_amx_whole<Form, BOTH>(cut, job, first, height, panel);
}

/* All rows of a block times a panel, while the next one is fetched. The last tile of rows ends where the block does:
 * what it does once more is not kept. */
template <class Form> void run_amx_panel(const Cut &cut, Range rows, int32_t panel, const char *next) {
    const int32_t count = rows.end - rows.begin, height = count < AMX_ROWS ? count : AMX_ROWS;
    const int32_t tiles = divide_up(count, height), pairs = divide_up(tiles, 2);
    const int32_t parts = pairs < MOST_PARTS ? pairs : MOST_PARTS;
    AmxJob job = {};
    job.row_bytes = (int64_t)cut.op.input.ld * bytes_an_input(cut.op.input.form);
    job.weights = cut.unpacked ? cut.unpacked : cut.packed(panel);
    job.chunks = cut.steps * cut.unpacking.words / Form::CHUNK_STEPS;
    const int32_t lines = (int32_t)(cut.panel_bytes / 64 / job.chunks); /* of packed weights, a chunk */
    for (int32_t pair = 0; pair < pairs; pair++) {
        const int32_t first = rows.begin + pair * 2 * height;
        for (int i = 0; i < 2; i++) {
            const int32_t row = first + i * height;
            job.rows[i] = row < rows.end - height ? row : rows.end - height;
            job.activations[i] = (const char *)cut.op.input.values + job.rows[i] * job.row_bytes;
        }
        job.lines_ahead = pair < parts ? lines / parts : 0;
        job.ahead = next + (int64_t)pair * job.chunks * job.lines_ahead * 64;
        if (pair * 2 + 1 < tiles)
            run_amx<Form, true>(cut, job, first, height, panel);
        else
            run_amx<Form, false>(cut, job, first, height, panel);
    }
}

template <class Form> void run_amx_block(const Cut &cut, Range rows, Range panels) {
    use_amx_rows<Form>(rows.end - rows.begin < AMX_ROWS ? rows.end - rows.begin : AMX_ROWS);
    for (int32_t panel = panels.begin; panel < panels.end; panel++) {
        if (cut.unpacked) cut.unpacking.panel(cut.packed(panel), cut.steps, cut.unpacked);
        run_amx_panel<Form>(cut, rows, panel, cut.packed(panel + 1 < panels.end ? panel + 1 : panel));
    }
    _tile_release();
}

template <> inline void run_block<AmxBF16>(const Cut &cut, Range rows, Range panels) {
    run_amx_block<AmxBF16>(cut, rows, panels);
}

template <> inline void run_block<AmxI8>(const Cut &cut, Range rows, Range panels) {
    run_amx_block<AmxI8>(cut, rows, panels);
}

template <> inline void run_block<AmxGroupsBF16>(const Cut &cut, Range rows, Range panels) {
    run_amx_block<AmxGroupsBF16>(cut, rows, panels);
}

template <> inline void run_block<AmxGroupsI4>(const Cut &cut, Range rows, Range panels) {
    run_amx_block<AmxGroupsI4>(cut, rows, panels);
}

/* Whether the inputs fill tiles to the end. */
inline bool fits_amx(const Linear &op) { return divide_up(op.weights.inputs, 32) % 2 == 0; }

} // namespace linear
} // namespace
} // namespace isotoken
#endif
