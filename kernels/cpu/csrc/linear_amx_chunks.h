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
 * and 7, of which a tile holds CHUNK_STEPS. */
template <int STEPS, bool IN_GROUPS> struct AmxChunk : Grouped<IN_GROUPS> {
    enum { CHUNK_STEPS = STEPS, CHUNK_BYTES = STEPS * STEP_BYTES, ROW_BYTES = STEPS * 4 };
};

struct AmxBF16 : AmxChunk<16, false> {
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

/* Groups use tiles 0 to 3 in turn, each for the sums of one tile of rows and half a panel. */
struct AmxGroupsBF16 : AmxChunk<16, true> {
    template <int TURN> ISOTOKEN_INLINE void multiply() {
        if constexpr (TURN == 0) _tile_dpbf16ps(0, 4, 6);
        if constexpr (TURN == 1) _tile_dpbf16ps(1, 5, 7);
        if constexpr (TURN == 2) _tile_dpbf16ps(2, 4, 6);
        if constexpr (TURN == 3) _tile_dpbf16ps(3, 5, 7);
    }
    ISOTOKEN_INLINE VecF sum(VecI bits) { return (VecF)bits; }
};

/* Activations and unpacked weights of 4 bits, both with a sign. */
struct AmxGroupsI4 : AmxChunk<8, true> {
    template <int TURN> ISOTOKEN_INLINE void multiply() {
        if constexpr (TURN == 0) _tile_dpbssd(0, 4, 6);
        if constexpr (TURN == 1) _tile_dpbssd(1, 5, 7);
        if constexpr (TURN == 2) _tile_dpbssd(2, 4, 6);
        if constexpr (TURN == 3) _tile_dpbssd(3, 5, 7);
    }
    ISOTOKEN_INLINE VecF sum(VecI bits) { return to_float(bits); }
};

/* gcc's intrinsics do not say what memory they read and write; what lies at `what` is as the program says. */
ISOTOKEN_INLINE void settle_memory(const void *what) { __asm__ volatile("" : : "r"(what) : "memory"); }

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
    settle_memory(&shape);
    _tile_loadconfig(&shape);
}

/* What the unit has summed up of two tiles of rows times a panel. */
struct alignas(64) AmxSums {
    int32_t bits[2 * AMX_ROWS][PANEL];
};

/* One or two tiles of rows times a panel, or those of its chunks that `first` and `last` bound. */
struct AmxJob {
    int32_t rows[2];            /* the first of each */
    const char *activations[2]; /* of that row */
    int64_t row_bytes;
    const char *weights;
    int32_t first, last, chunks; /* chunks: of the panel */
    AmxSums *sums;               /* of the chunks before the first, or before `chunks`, where there are any */
    const char *ahead; /* `lines_ahead` of each of its `streams` are fetched with each chunk */
    int64_t stream_bytes;
    int32_t streams, lines_ahead;
};

/* What is fetched from far comes a quarter faster in several streams, from several pages at once. */
ISOTOKEN_INLINE void fetch_ahead(const AmxJob &job, int32_t chunk) {
    const char *from = job.ahead + (int64_t)chunk * job.lines_ahead * 64;
    for (int32_t stream = 0; stream < job.streams; stream++, from += job.stream_bytes)
        for (int32_t line = 0; line < job.lines_ahead; line++) prefetch_far(from + line * 64);
}

} // namespace linear
} // namespace
} // namespace isotoken
#endif
