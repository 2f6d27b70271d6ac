/* Attention over a bfloat16 cache in the matrix unit of AMX, which takes pieces of keys and values as they lie.
 *
 * A tile of keys is 16 pairs of dimensions by 16 tokens, one of values 8 pairs of tokens by 16 dimensions. The unit
 * adds up a tile's products in an order of its own, and tiles in the order that is written here: for one row as for
 * sixteen.
 */
#ifndef ISOTOKEN_CPU_ATTENTION_AMX_H
#define ISOTOKEN_CPU_ATTENTION_AMX_H

#include "attention_tile.h"

#if defined(__AMX_TILE__)

namespace isotoken {
namespace {

/* Tiles 0 to 3 hold sums. 4 times 5 are whole: 16 rows of queries, 16 pairs of dimensions of keys. 6 times 7 are half
 * as deep: 8 pairs of weights and of values, or of a head size's rest. The unit reads it as it lies here. */
struct AttentionShape {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* The intrinsics of gcc 12 do not say that they read and write memory. */
ISOTOKEN_INLINE void settle_memory() { __asm__ volatile("" ::: "memory"); }

inline void shape_tiles(int rows) {
    AttentionShape shape = {};
    shape.palette = 1;
    for (int tile = 0; tile < 8; tile++) {
        shape.row_bytes[tile] = tile == 6 ? 32 : 64;
        shape.rows[tile] = (uint8_t)(tile == 5 ? 16 : tile == 7 ? 8 : rows);
    }
    settle_memory();
    _tile_loadconfig(&shape);
}

enum {
    KEY_TILE_BYTES = 16 * WORD_ROW_BYTES,
    QUERY_STRIDE = HEAD_STRIDE * 4,
    OUTPUT_STRIDE = HEAD_STRIDE * 4,
    SCORE_STRIDE = SCORES_STRIDE * 4,
    WEIGHTS_BYTES = TOKENS_A_BLOCK * 2 /* of a piece */
};

ISOTOKEN_INLINE void fetch_lines(const char *from, int num_lines, int stride) {
    for (int line = 0; line < num_lines; line++)
        prefetch_far(from + line * stride);
}

/* Scores of N pieces, 1 to 4. */
template <int N>
inline void score_pieces(TileScratch &tile, const char *const *keys, const char *const *ahead, int dim, int place) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    int word = 0;
    for (; word + 16 <= dim / 2; word += 16) {
        const int offset = word * WORD_ROW_BYTES;
        for (int piece = 0; piece < N && ahead; piece++)
            fetch_lines(ahead[piece] + offset, 16, WORD_ROW_BYTES);
        _tile_loadd(4, tile.queries[0] + word, QUERY_STRIDE);
        _tile_loadd(5, keys[0] + offset, WORD_ROW_BYTES);
        _tile_dpbf16ps(0, 4, 5);
        if (N > 1) {
            _tile_loadd(5, keys[1] + offset, WORD_ROW_BYTES);
            _tile_dpbf16ps(1, 4, 5);
        }
        if (N > 2) {
            _tile_loadd(5, keys[2] + offset, WORD_ROW_BYTES);
            _tile_dpbf16ps(2, 4, 5);
        }
        if (N > 3) {
            _tile_loadd(5, keys[3] + offset, WORD_ROW_BYTES);
            _tile_dpbf16ps(3, 4, 5);
        }
    }
    if (word < dim / 2) { /* the rest is half a tile deep */
        const int offset = word * WORD_ROW_BYTES;
        _tile_loadd(6, tile.queries[0] + word, QUERY_STRIDE);
        _tile_loadd(7, keys[0] + offset, WORD_ROW_BYTES);
        _tile_dpbf16ps(0, 6, 7);
        if (N > 1) {
            _tile_loadd(7, keys[1] + offset, WORD_ROW_BYTES);
            _tile_dpbf16ps(1, 6, 7);
        }
        if (N > 2) {
            _tile_loadd(7, keys[2] + offset, WORD_ROW_BYTES);
            _tile_dpbf16ps(2, 6, 7);
        }
        if (N > 3) {
            _tile_loadd(7, keys[3] + offset, WORD_ROW_BYTES);
            _tile_dpbf16ps(3, 6, 7);
        }
    }
    float *scores = tile.scores[0] + place;
    _tile_stored(0, scores, SCORE_STRIDE);
    if (N > 1)
        _tile_stored(1, scores + 16, SCORE_STRIDE);
    if (N > 2)
        _tile_stored(2, scores + 32, SCORE_STRIDE);
    if (N > 3)
        _tile_stored(3, scores + 48, SCORE_STRIDE);
}

/* Add up weight * value over a chunk for N times 16 dimensions from `first` on. */
template <int N>
inline void weigh_dims(TileScratch &tile, const Chunk &chunk, const Chunk &next, int dim, int first) {
    float *outputs = tile.outputs[0] + first;
    _tile_loadd(0, outputs, OUTPUT_STRIDE);
    if (N > 1)
        _tile_loadd(1, outputs + 16, OUTPUT_STRIDE);
    if (N > 2) {
        _tile_loadd(2, outputs + 32, OUTPUT_STRIDE);
        _tile_loadd(3, outputs + 48, OUTPUT_STRIDE);
    }
    const int64_t stride = dim * 4;
    for (int piece = 0; piece < chunk.num_pieces; piece++) {
        const char *values = chunk.values[piece] + first * 4;
        if (piece < next.num_pieces)
            for (int i = 0; i < N; i++)
                fetch_lines(next.values[piece] + first * 4 + i * 64, 8, (int)stride);
        _tile_loadd(6, (const char *)tile.weights[0] + piece * WEIGHTS_BYTES, SCORE_STRIDE);
        _tile_loadd(7, values, stride);
        _tile_dpbf16ps(0, 6, 7);
        if (N > 1) {
            _tile_loadd(7, values + 64, stride);
            _tile_dpbf16ps(1, 6, 7);
        }
        if (N > 2) {
            _tile_loadd(7, values + 128, stride);
            _tile_dpbf16ps(2, 6, 7);
            _tile_loadd(7, values + 192, stride);
            _tile_dpbf16ps(3, 6, 7);
        }
    }
    _tile_stored(0, outputs, OUTPUT_STRIDE);
    if (N > 1)
        _tile_stored(1, outputs + 16, OUTPUT_STRIDE);
    if (N > 2) {
        _tile_stored(2, outputs + 32, OUTPUT_STRIDE);
        _tile_stored(3, outputs + 48, OUTPUT_STRIDE);
    }
}

template <> struct TileKernels<Bf16Cache> {
    enum { ROWS = MATRIX_ROWS };

    static void begin(TileScratch &tile, int rows) {
        if (rows != tile.matrix_rows)
            shape_tiles(rows);
        tile.matrix_rows = rows;
    }

    static void end() { _tile_release(); }

    static void score(int, TileScratch &tile, const Chunk &chunk, const Chunk &next, int dim) {
        settle_memory();
        int piece = 0;
        for (; piece + 4 <= chunk.num_pieces; piece += 4)
            score_pieces<4>(tile, chunk.keys + piece, piece + 4 <= next.num_pieces ? next.keys + piece : nullptr, dim,
                            piece * TOKENS_A_BLOCK);
        for (; piece < chunk.num_pieces; piece++)
            score_pieces<1>(tile, chunk.keys + piece, piece < next.num_pieces ? next.keys + piece : nullptr, dim,
                            piece * TOKENS_A_BLOCK);
        settle_memory();
    }

    static void weigh(int, TileScratch &tile, const Chunk &chunk, const Chunk &next, int dim) {
        settle_memory();
        int first = 0;
        for (; first + 64 <= dim; first += 64)
            weigh_dims<4>(tile, chunk, next, dim, first);
        if (first + 32 <= dim) {
            weigh_dims<2>(tile, chunk, next, dim, first);
            first += 32;
        }
        if (first < dim)
            weigh_dims<1>(tile, chunk, next, dim, first);
        settle_memory();
    }
};

} // namespace
} // namespace isotoken

#endif
#endif
