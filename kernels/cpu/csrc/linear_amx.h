/* A linear layer in the matrix unit of AMX: which tiles of rows go together, and what is fetched meanwhile. */
#ifndef ISOTOKEN_CPU_LINEAR_AMX_H
#define ISOTOKEN_CPU_LINEAR_AMX_H

#include "linear_amx_groups.h"
#include "linear_amx_whole.h"

namespace isotoken {
namespace {
namespace linear {

enum {
    STREAMS = 8,           /* in which the next panel is fetched, */
    MOST_PARTS = 4,        /* by up to as many pairs of tiles */
    PASS_BYTES = 16 << 10  /* of weights: with 24 KB, sums are 7 % slower, with none of it 40 % */
};

/* What a block of rows keeps: of weights in groups, nothing. */
template <class Form, bool GROUPED = Form::GROUPED> struct AmxKept {
    enum { PASS_CHUNKS = 1 << 20 };
    void finish_some(int32_t) {}
    AmxSums *sums_of(int32_t) { return nullptr; }
};

/* Weights of a pass through the rows stay in the first cache; sums wait in the second from pass to pass. */
template <class Form> struct AmxKept<Form, false> : AmxOutgoing<Form> {
    enum { PASS_CHUNKS = PASS_BYTES / (int)Form::CHUNK_BYTES, MOST_PAIRS = BLOCK_BYTES / (PASS_BYTES / PANEL) / 32 };
    AmxSums sums[MOST_PAIRS]; /* rows of more than a pass are so long that no more pairs come together */
    AmxSums *sums_of(int32_t pair) { return pair < MOST_PAIRS ? sums + pair : nullptr; }
};

template <class Form, bool BOTH>
void run_amx(const Cut &cut, const AmxJob &job, int32_t first, int32_t height, int32_t panel, AmxKept<Form> &kept) {
    if constexpr (Form::GROUPED)
        run_amx_groups<Form, BOTH>(cut, job, first, height, panel);
    else
        run_amx_whole<Form, BOTH>(cut, job, first, height, panel, kept);
}

/* A pass of all rows of a block through some chunks of a panel, while the next one is fetched. The last tile of rows
 * ends where the block does: what it does once more is not kept. */
template <class Form>
void run_amx_pass(const Cut &cut, Range rows, int32_t panel, const char *next, AmxJob job, AmxKept<Form> &kept) {
    const int32_t count = rows.end - rows.begin, height = count < AMX_ROWS ? count : AMX_ROWS;
    const int32_t tiles = divide_up(count, height), pairs = divide_up(tiles, 2);
    const int32_t parts = pairs >= MOST_PARTS ? MOST_PARTS : pairs > 1 ? 2 : 1;
    const int32_t lines = (int32_t)(cut.panel_bytes / 64 / job.chunks); /* of packed weights, a chunk */
    job.streams = STREAMS / parts;
    job.lines_ahead = lines / STREAMS;
    job.stream_bytes = (int64_t)job.chunks * job.lines_ahead * 64;
    for (int32_t pair = 0; pair < pairs; pair++) {
        const int32_t first = rows.begin + pair * 2 * height;
        for (int i = 0; i < 2; i++) {
            const int32_t row = first + i * height;
            job.rows[i] = row < rows.end - height ? row : rows.end - height;
            job.activations[i] = (const char *)cut.op.input.values + job.rows[i] * job.row_bytes;
        }
        job.sums = kept.sums_of(pair);
        job.ahead = next + pair * job.streams * job.stream_bytes;
        if (pair >= parts) job.streams = 0;
        if (pair * 2 + 1 < tiles)
            run_amx<Form, true>(cut, job, first, height, panel, kept);
        else
            run_amx<Form, false>(cut, job, first, height, panel, kept);
    }
}

template <class Form> void run_amx_block(const Cut &cut, Range rows, Range panels) {
    use_amx_rows<Form>(rows.end - rows.begin < AMX_ROWS ? rows.end - rows.begin : AMX_ROWS);
    AmxKept<Form> kept;
    AmxJob job = {};
    job.row_bytes = (int64_t)cut.op.input.ld * bytes_an_input(cut.op.input.form);
    job.chunks = cut.steps * cut.unpacking.words / Form::CHUNK_STEPS;
    const int32_t a_pass = rows.end - rows.begin > 2 * AMX_ROWS ? (int32_t)AmxKept<Form>::PASS_CHUNKS : job.chunks;
    for (int32_t panel = panels.begin; panel < panels.end; panel++) {
        if (cut.unpacked) cut.unpacking.panel(cut.packed(panel), cut.steps, cut.unpacked);
        job.weights = cut.unpacked ? cut.unpacked : cut.packed(panel);
        const char *next = cut.packed(panel + 1 < panels.end ? panel + 1 : panel);
        for (job.first = 0; job.first < job.chunks; job.first = job.last) {
            job.last = job.first + a_pass < job.chunks ? job.first + a_pass : job.chunks;
            run_amx_pass<Form>(cut, rows, panel, next, job, kept);
        }
    }
    kept.finish_some(2 * AMX_ROWS);
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
