/* Tiles in the matrix unit of AMX: 16 rows of activations times 16 outputs times 64 bytes of inputs at once.
 *
 * Panels lie as this unit wants them. A sum of bfloat16 adds up 32 inputs at a time, in an order of the unit's own, so
 * every number of rows runs here. Integers are exact, so few rows of them may run anywhere.
 */
#ifndef ISOTOKEN_CPU_LINEAR_AMX_H
#define ISOTOKEN_CPU_LINEAR_AMX_H

#include "linear_panels.h"

namespace isotoken {
namespace {
namespace linear {

enum {
    AMX_ROWS = 16,
    AMX_BYTES = 64,                           /* of a row of a tile: inputs of activations, outputs of weights */
    CHUNK_STEPS = 16,                         /* of a panel, that a tile of weights holds */
    CHUNK_BYTES = CHUNK_STEPS * STEP_BYTES,   /* two tiles of weights lie side by side */
    AMX_LINES = CHUNK_BYTES / 64,
    MOST_PARTS = 4
};

/* Sums of two tiles of rows times the two halves of a panel are in tiles 0 to 3, activations in 4 and 5, weights in 6
 * and 7. */
struct AmxBF16 {
    ISOTOKEN_INLINE void multiply_first() {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    ISOTOKEN_INLINE void multiply_second() {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    ISOTOKEN_INLINE VecF sum(VecI bits, const int32_t *) { return (VecF)bits; }
};

struct AmxI8 {
    ISOTOKEN_INLINE void multiply_first() {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
    }
    ISOTOKEN_INLINE void multiply_second() {
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    ISOTOKEN_INLINE VecF sum(VecI bits, const int32_t *start) { return to_float(bits + load_int(start)); }
};

/* How many rows the tiles have; the unit reads it as it lies here. */
struct AmxShape {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

inline void use_amx_rows(int32_t rows) {
    AmxShape shape = {};
    shape.palette = 1;
    for (int tile = 0; tile < 8; tile++) {
        shape.row_bytes[tile] = AMX_BYTES;
        shape.rows[tile] = (uint8_t)(tile < 6 ? rows : CHUNK_STEPS);
    }
    _tile_loadconfig(&shape);
}

/* One or two tiles of rows times a panel. */
struct AmxJob {
    const char *activations[2]; /* of the first row of each */
    int64_t row_bytes;
    const char *weights;
    int32_t chunks;
    const char *ahead; /* some lines of it are fetched in each chunk */
    int32_t lines_ahead;
};

template <class Form, bool BOTH> __attribute__((noinline)) void run_amx(const AmxJob &job) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const char *weights = job.weights, *ahead = job.ahead;
    for (int32_t chunk = 0; chunk < job.chunks; chunk++) {
        for (int32_t line = 0; line < job.lines_ahead; line++, ahead += 64) prefetch_far(ahead);
        _tile_loadd(6, weights, STEP_BYTES);
        _tile_loadd(4, job.activations[0] + chunk * AMX_BYTES, job.row_bytes);
        _tile_loadd(7, weights + AMX_BYTES, STEP_BYTES);
        Form::multiply_first();
        if (BOTH) {
            _tile_loadd(5, job.activations[1] + chunk * AMX_BYTES, job.row_bytes);
            Form::multiply_second();
        }
        weights += CHUNK_BYTES;
    }
}

/* Take the sums of a tile of rows out of the unit and finish those from `first` on. */
template <class Form> void finish_amx(const Cut &cut, int32_t row, int32_t first, int32_t end, int32_t panel, bool second) {
    alignas(64) int32_t bits[AMX_ROWS][PANEL];
    alignas(64) float sums[PANEL];
    if (second) {
        _tile_stored(2, bits[0], sizeof bits[0]);
        _tile_stored(3, bits[0] + AMX_ROWS, sizeof bits[0]);
    } else {
        _tile_stored(0, bits[0], sizeof bits[0]);
        _tile_stored(1, bits[0] + AMX_ROWS, sizeof bits[0]);
    }
    const int32_t *start = cut.op.weights.sums + panel * PANEL; /* of integers */
    for (int32_t r = first; r < end; r++) {
        for (int v = 0; v < PANEL_VECTORS; v++)
            store(sums + v * LANES, Form::sum(load_int(bits[r - row] + v * LANES), start + v * LANES));
        finish_row(cut.op, r, panel, sums);
    }
}

/* All rows of a block times a panel, while the next one is fetched. The last tile of rows ends where the block does:
 * of those that the one before has done too, nothing is kept. */
template <class Form> void run_amx_panel(const Cut &cut, Range rows, int32_t panel, const char *next) {
    const int32_t count = rows.end - rows.begin, height = count < AMX_ROWS ? count : AMX_ROWS;
    const int32_t tiles = divide_up(count, height), pairs = divide_up(tiles, 2), parts = pairs < MOST_PARTS ? pairs : MOST_PARTS;
    AmxJob job = {};
    job.row_bytes = (int64_t)cut.op.input.ld * bytes_an_input(cut.op.input.form);
    job.weights = cut.packed(panel);
    job.chunks = cut.steps / CHUNK_STEPS;
    for (int32_t pair = 0; pair < pairs; pair++) {
        int32_t starts[2];
        for (int i = 0; i < 2; i++) {
            const int32_t start = rows.begin + (pair * 2 + i) * height;
            starts[i] = start < rows.end - height ? start : rows.end - height;
            job.activations[i] = (const char *)cut.op.input.values + starts[i] * job.row_bytes;
        }
        job.lines_ahead = pair < parts ? AMX_LINES / parts : 0;
        job.ahead = next + (int64_t)pair * job.chunks * job.lines_ahead * 64;
        const bool both = pair * 2 + 1 < tiles;
        both ? run_amx<Form, true>(job) : run_amx<Form, false>(job);
        const int32_t first = rows.begin + pair * 2 * height;
        finish_amx<Form>(cut, starts[0], first, starts[0] + height, panel, false);
        if (both) finish_amx<Form>(cut, starts[1], first + height, starts[1] + height, panel, true);
    }
}

template <class Form> void run_amx_block(const Cut &cut, Range rows, Range panels) {
    use_amx_rows(rows.end - rows.begin < AMX_ROWS ? rows.end - rows.begin : AMX_ROWS);
    for (int32_t panel = panels.begin; panel < panels.end; panel++)
        run_amx_panel<Form>(cut, rows, panel, cut.packed(panel + 1 < panels.end ? panel + 1 : panel));
    _tile_release();
}

template <> inline void run_block<AmxBF16>(const Cut &cut, Range rows, Range panels) {
    run_amx_block<AmxBF16>(cut, rows, panels);
}

template <> inline void run_block<AmxI8>(const Cut &cut, Range rows, Range panels) {
    run_amx_block<AmxI8>(cut, rows, panels);
}

/* Whether the inputs fill tiles to the end. */
inline bool fits_amx(const Linear &op) { return divide_up(op.weights.inputs, 32) % 2 == 0; }

} // namespace linear
} // namespace
} // namespace isotoken
#endif
