/* Tiles in the matrix unit of AMX: 16 rows of activations times 16 outputs times 64 bytes of inputs at once.
 *
 * Panels lie as this unit wants them. A sum of bfloat16 adds up 32 inputs at a time, the even and the odd ones apart, so
 * every number of rows runs here. Integers are exact, so few rows of them may run anywhere.
 */
#ifndef ISOTOKEN_CPU_LINEAR_AMX_CHUNKS_H
#define ISOTOKEN_CPU_LINEAR_AMX_CHUNKS_H

#include "linear_panels.h"

namespace isotoken {
namespace {
namespace linear {

enum { AMX_ROWS = 16 };

/* Sums of two tiles of rows times the two halves of a panel are in tiles 0 to 3, activations in 4 and 5, weights in 6
 * and 7. CHUNK_STEPS of a panel are in a tile of weights. */
template <int STEPS, bool IN_GROUPS> struct AmxChunk : Grouped<IN_GROUPS> {
    enum { CHUNK_STEPS = STEPS, CHUNK_BYTES = STEPS * STEP_BYTES, ROW_BYTES = STEPS * 4 };
};

template <bool IN_GROUPS> struct AmxBF16Chunk : AmxChunk<16, IN_GROUPS> {
    ISOTOKEN_INLINE void multiply_first() {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    ISOTOKEN_INLINE void multiply_second() {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    ISOTOKEN_INLINE VecF sum(VecI bits, VecI) { return (VecF)bits; }
};

struct AmxBF16 : AmxBF16Chunk<false> {};
struct AmxGroupsBF16 : AmxBF16Chunk<true> {};

struct AmxI8 : AmxChunk<16, false> {
    ISOTOKEN_INLINE void multiply_first() {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
    }
    ISOTOKEN_INLINE void multiply_second() {
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    ISOTOKEN_INLINE VecF sum(VecI bits, VecI start) { return to_float(bits + start); }
};

/* Activations with a sign, weights of 0 to 15. */
struct AmxGroupsU4 : AmxChunk<8, true> {
    ISOTOKEN_INLINE void multiply_first() {
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
    }
    ISOTOKEN_INLINE void multiply_second() {
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
    ISOTOKEN_INLINE VecF sum(VecI bits, VecI start) { return to_float(bits + start); }
};

/* How large the tiles are; the unit reads it as it lies here. */
struct AmxShape {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

template <class Form> void use_amx_rows(int32_t rows) {
    AmxShape shape = {};
    shape.palette = 1;
    for (int tile = 0; tile < 8; tile++) {
        const bool activations = tile == 4 || tile == 5, weights = tile > 5;
        shape.row_bytes[tile] = activations ? (uint16_t)Form::ROW_BYTES : 64;
        shape.rows[tile] = (uint8_t)(weights ? (int32_t)Form::CHUNK_STEPS : rows);
    }
    _tile_loadconfig(&shape);
}

/* One or two tiles of rows times a panel. */
struct AmxJob {
    int32_t rows[2];            /* the first of each */
    const char *activations[2]; /* of that row */
    int64_t row_bytes;
    const char *weights;
    int32_t chunks;
    const char *ahead; /* some lines of it are fetched in each chunk */
    int32_t lines_ahead;
};

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

/* gcc's intrinsics do not say what memory they read and write. */
ISOTOKEN_INLINE void settle_memory() { __asm__ volatile("" ::: "memory"); }

/* Sum up some chunks. */
template <class Form, bool BOTH>
ISOTOKEN_INLINE void run_chunks(const AmxJob &job, int32_t begin, int32_t end, AmxSums *sums) {
    settle_memory();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const char *weights = job.weights + (int64_t)begin * Form::CHUNK_BYTES;
    const char *ahead = job.ahead + (int64_t)begin * job.lines_ahead * 64;
    for (int32_t chunk = begin; chunk < end; chunk++) {
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
    settle_memory();
}

} // namespace linear
} // namespace
} // namespace isotoken
#endif
