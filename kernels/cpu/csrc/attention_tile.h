/* A tile of attention: some rows, each one query of one head, that look at the same keys and values.
 *
 * A row's arithmetic is its own. Its scores are one chain of sums over the head's dimensions for each position, its
 * outputs one chain over the positions for each dimension, in rising order. Positions are taken in chunks with fixed
 * bounds, and between chunks what is summed so far is scaled to the largest score seen (online softmax). So the result
 * depends neither on the other rows, nor on how queries were cut into tiles, steps or batches.
 */
#ifndef ISOTOKEN_CPU_ATTENTION_TILE_H
#define ISOTOKEN_CPU_ATTENTION_TILE_H

#include "attention_forms.h"

namespace isotoken {
namespace {

enum {
    VECTOR_ROWS = VECTOR_REGISTERS >= 32 ? 8 : 4, /* of a tile, where vectors do the work */
    MATRIX_ROWS = 16,                             /* where a matrix unit does */
#if defined(__AMX_TILE__)
    MOST_ROWS = MATRIX_ROWS,
#else
    MOST_ROWS = VECTOR_ROWS,
#endif
    CHUNK = 512, /* positions */
    CHUNK_PIECES = CHUNK / TOKENS_A_BLOCK,
    COLUMNS_A_PIECE = TOKENS_A_BLOCK / LANES, /* a column: LANES tokens of a piece of keys */
    COLUMN_BYTES = LANES * 4,
    WORD_ROW_BYTES = TOKENS_A_BLOCK * 4,
    SCORES_STRIDE = CHUNK + 16, /* rows must not lie a power of two apart */
    HEAD_STRIDE = MAX_HEAD_DIM + 16
};

/* Where the pieces of a chunk lie, as far as a tile needs them. */
struct Chunk {
    int begin;      /* the first position */
    int num_pieces; /* 0: no chunk */
    const char *keys[CHUNK_PIECES], *values[CHUNK_PIECES];
    const float *key_scales[CHUNK_PIECES], *value_scales[CHUNK_PIECES]; /* of an int8 cache */
};

const Chunk NO_CHUNK = {};

/* One row's state between chunks. */
struct RowState {
    int begin, end; /* the positions that it sees */
    float largest;  /* score so far */
    float query_scale;
    int32_t query_sum; /* these two of an int8 cache */
    alignas(64) float sums[LANES]; /* of exp(score - largest), in the lanes that they were computed in */
};

struct TileScratch {
    alignas(64) int32_t queries[MOST_ROWS][HEAD_STRIDE]; /* words */
    alignas(64) float scores[MOST_ROWS][SCORES_STRIDE];
    alignas(64) int32_t weights[MOST_ROWS][SCORES_STRIDE]; /* float, or bfloat16 in the first half of a row */
    alignas(64) float outputs[MOST_ROWS][HEAD_STRIDE];     /* sum of exp(score - largest) * value */
    alignas(64) char last_values[TOKENS_A_BLOCK * MAX_HEAD_DIM * 4];
    RowState rows[MOST_ROWS];
    Chunk chunks[2]; /* one is at hand, the other comes next */
    int at_hand;
    int matrix_rows; /* that the matrix unit is set to */
};

/* Columns that are worth taking at once: enough sums side by side to hide an instruction's latency. */
constexpr int columns_at_once(int rows) { return (rows <= 2 ? 4 : rows <= 4 ? 2 : 1) * (VECTOR_REGISTERS / 16); }

/* Vectors of outputs that are worth taking at once. */
constexpr int vectors_at_once(int rows) { return rows * 4 + 5 <= VECTOR_REGISTERS ? 4 : 2; }

/* Not inlined: the sums stay in registers where nothing else wants them. */
template <class Form, int ROWS, int COLUMNS>
__attribute__((noinline)) void score_columns(TileScratch &tile, const char *const *columns, const char *const *ahead,
                                             int num_words, int place) {
    typename Form::Score sums[ROWS][COLUMNS];
    ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
        ISOTOKEN_UNROLL for (int c = 0; c < COLUMNS; c++) sums[row][c] = Form::start(tile.rows[row].query_sum);
    for (int word = 0; word < num_words; word++) {
        VecI keys[COLUMNS];
        ISOTOKEN_UNROLL for (int c = 0; c < COLUMNS; c++) {
            keys[c] = load_int(columns[c] + word * WORD_ROW_BYTES);
            prefetch_far(ahead[c] + word * WORD_ROW_BYTES);
        }
        ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++) {
            const VecI query = splat_int(tile.queries[row][word]);
            ISOTOKEN_UNROLL for (int c = 0; c < COLUMNS; c++)
                sums[row][c] = Form::multiply(sums[row][c], keys[c], query);
        }
    }
    ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
        ISOTOKEN_UNROLL for (int c = 0; c < COLUMNS; c++)
            store(tile.scores[row] + place + c * LANES, Form::finish(sums[row][c]));
}

/* The scores of a chunk from column `first` on: as many columns at once as are worth it, then fewer. */
template <class Form, int ROWS, int COLUMNS = columns_at_once(ROWS)>
inline void score_chunk(TileScratch &tile, const Chunk &chunk, const Chunk &next, int num_words, int first = 0) {
    const int num_columns = chunk.num_pieces * COLUMNS_A_PIECE;
    for (; first + COLUMNS <= num_columns; first += COLUMNS) {
        const char *columns[COLUMNS], *ahead[COLUMNS];
        for (int c = 0; c < COLUMNS; c++) {
            const int piece = (first + c) / COLUMNS_A_PIECE;
            columns[c] = chunk.keys[piece] + (first + c) % COLUMNS_A_PIECE * COLUMN_BYTES;
            ahead[c] = piece < next.num_pieces ? next.keys[piece] : columns[c];
        }
        score_columns<Form, ROWS, COLUMNS>(tile, columns, ahead, num_words, first * LANES);
    }
    if constexpr (COLUMNS > 1)
        score_chunk<Form, ROWS, COLUMNS / 2>(tile, chunk, next, num_words, first);
}

/* Add up weight * value over a chunk for VECTORS vectors of each row's outputs, from dimension `first` on. */
template <class Form, int ROWS, int VECTORS>
__attribute__((noinline)) void weigh_columns(TileScratch &tile, const Chunk &chunk, const Chunk &next, int dim,
                                             int first) {
    enum { STEPS = TOKENS_A_BLOCK / Form::TOKENS_A_STEP };
    VecF sums[ROWS][VECTORS];
    ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
        ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) sums[row][v] = load(tile.outputs[row] + first + v * LANES);
    const int step_bytes = dim * Form::VALUE_BYTES;
    for (int piece = 0; piece < chunk.num_pieces; piece++) {
        const char *from = chunk.values[piece] + first * Form::VALUE_BYTES;
        const char *ahead = piece < next.num_pieces ? next.values[piece] + first * Form::VALUE_BYTES : from;
        for (int step = 0; step < STEPS; step++, from += step_bytes, ahead += step_bytes) {
            typename Form::Value values[VECTORS];
            ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) {
                values[v] = Form::load_value(from + v * LANES * Form::VALUE_BYTES);
                prefetch_far(ahead + v * LANES * Form::VALUE_BYTES);
            }
            ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++) {
                const VecI weight = splat_int(tile.weights[row][piece * STEPS + step]);
                ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++)
                    sums[row][v] = Form::weigh(sums[row][v], weight, values[v]);
            }
        }
    }
    ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
        ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) store(tile.outputs[row] + first + v * LANES, sums[row][v]);
}

template <class Form, int ROWS>
void weigh_chunk(TileScratch &tile, const Chunk &chunk, const Chunk &next, int dim) {
    enum { VECTORS = vectors_at_once(ROWS) };
    int first = 0;
    for (; first + VECTORS * LANES <= dim; first += VECTORS * LANES)
        weigh_columns<Form, ROWS, VECTORS>(tile, chunk, next, dim, first);
    for (; first + 2 * LANES <= dim; first += 2 * LANES)
        weigh_columns<Form, ROWS, 2>(tile, chunk, next, dim, first);
    for (; first < dim; first += LANES)
        weigh_columns<Form, ROWS, 1>(tile, chunk, next, dim, first);
}

/* The same for a number of rows known only now. A form with a matrix unit has its own. */
template <class Form, int ROWS>
inline void score_up_to(int rows, TileScratch &tile, const Chunk &chunk, const Chunk &next, int num_words) {
    if constexpr (ROWS > 1)
        if (rows < ROWS)
            return score_up_to<Form, ROWS - 1>(rows, tile, chunk, next, num_words);
    score_chunk<Form, ROWS>(tile, chunk, next, num_words);
}

template <class Form, int ROWS>
inline void weigh_up_to(int rows, TileScratch &tile, const Chunk &chunk, const Chunk &next, int dim) {
    if constexpr (ROWS > 1)
        if (rows < ROWS)
            return weigh_up_to<Form, ROWS - 1>(rows, tile, chunk, next, dim);
    weigh_chunk<Form, ROWS>(tile, chunk, next, dim);
}

template <class Form> struct TileKernels {
    enum { ROWS = VECTOR_ROWS };
    static void begin(TileScratch &, int) {}
    static void end() {}
    static void score(int rows, TileScratch &tile, const Chunk &chunk, const Chunk &next, int dim) {
        score_up_to<Form, ROWS>(rows, tile, chunk, next, dim / Form::DIMS_A_WORD);
    }
    static void weigh(int rows, TileScratch &tile, const Chunk &chunk, const Chunk &next, int dim) {
        weigh_up_to<Form, ROWS>(rows, tile, chunk, next, dim);
    }
};

} // namespace
} // namespace isotoken

#endif
