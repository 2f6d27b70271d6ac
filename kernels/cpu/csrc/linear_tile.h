/* The inner loops: some rows of activations times some columns of weights.
 *
 * Every sum is one chain over all inputs in their order, in one lane; a tile's shape decides only how many chains run
 * beside each other. So results are the same bits whatever the shape.
 */
#ifndef ISOTOKEN_CPU_LINEAR_TILE_H
#define ISOTOKEN_CPU_LINEAR_TILE_H

#include "linear_forms.h"

namespace isotoken {
namespace {
namespace linear {

enum {
    STEP_BYTES = PANEL * 4,
    VECTOR_BYTES = LANES * 4,
    VECTORS_A_PANEL = PANEL / LANES,
    STREAM_ROWS = 4, /* up to as many rows, weights come from main memory faster than they are used */
    STREAM_AHEAD = 2048,
    MOST_ROWS = 11
};

/* Rows of a tile of two vectors, so that its accumulators stay in registers. */
template <class Form> constexpr int most_rows() {
    if (Form::SUM_STEPS > 0) return STREAM_ROWS; /* more rows are for other forms */
    if (VECTOR_REGISTERS == 32) return Form::GROUPED ? 6 : MOST_ROWS;
    if (Form::WORDS > 1) return STREAM_ROWS;
    return Form::GROUPED ? 2 : 4;
}

/* Vectors of columns beside each other: with few rows more, since each chain waits for its last addition. */
template <class Form> constexpr int wide_vectors(int rows) {
    if (rows == 1 && Form::SUM_STEPS == 0) return 8;
    const int rows_of_four = VECTOR_REGISTERS == 32 && !Form::GROUPED ? STREAM_ROWS : 2;
    return rows <= rows_of_four ? 4 : 2;
}

struct Tile {
    const char *activations; /* of the first row */
    int64_t row_bytes;
    const char *weights; /* of the first column */
    int64_t panel_bytes;
    int32_t steps;
    const int32_t *start; /* PlainI8: where the sums of the columns begin */
    float *out;           /* [rows][ld_out] */
    int32_t ld_out;
    const char *ahead; /* what to fetch into the caches meanwhile, */
    int32_t ahead_stride; /* and how many bytes of it a step: 64, 128 or 0 for none */
    /* Of groups: */
    int32_t steps_a_group; /* without groups: all */
    const uint16_t *scales; /* of the first column, [groups][PANEL] */
    int64_t panel_scales;
    const int32_t *sums; /* GroupsU4 and FusedI4A8: of the first row, where the sums of each group begin */
    int32_t ld_sums;
};

ISOTOKEN_INLINE VecF as_float(VecF sum) { return sum; }
ISOTOKEN_INLINE VecF as_float(VecI sum) { return to_float(sum); }
ISOTOKEN_INLINE VecF as_float(EvenOdd sum) { return sum.even + sum.odd; }
ISOTOKEN_INLINE void begin_with(EvenOdd &acc, int32_t) { acc = EvenOdd{}; }
ISOTOKEN_INLINE void begin_with(VecI &acc, int32_t start) { acc = splat_int(start); }
ISOTOKEN_INLINE void begin_with(VecF &acc, int32_t) { acc = VecF{}; }

/* Four pointers and three multiples of the stride address all rows without a multiplication. */
struct RowPointers {
    const char *of[4];
    int64_t row_bytes;

    ISOTOKEN_INLINE RowPointers at(const Tile &tile) {
        const char *first = tile.activations;
        const int64_t bytes = tile.row_bytes;
        return {{first, first + 3 * bytes, first + 6 * bytes, first + 9 * bytes}, bytes};
    }
    __attribute__((always_inline)) VecI splat(int row, int64_t offset) const {
        return splat_int(load_dword(of[row / 3] + (row % 3) * row_bytes + offset));
    }
};

ISOTOKEN_INLINE int64_t column_offset(int v, int64_t panel_bytes) {
    return v / VECTORS_A_PANEL * panel_bytes + v % VECTORS_A_PANEL * VECTOR_BYTES;
}

/* One step: `weights` and `offset` of the activations are those of the step. */
template <class Form, int ROWS, int VECTORS>
ISOTOKEN_INLINE void multiply_step(typename Form::Acc (&acc)[ROWS][VECTORS], const RowPointers &rows, int64_t offset,
                                   const char *weights, int64_t panel_bytes) {
    if constexpr (Form::WORDS == 1) {
        VecI columns[VECTORS];
        ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) {
            const char *from = weights + column_offset(v, panel_bytes);
            columns[v] = load_int(from);
            if (ROWS <= STREAM_ROWS && (v * VECTOR_BYTES) % 64 == 0) prefetch(from + STREAM_AHEAD);
        }
        ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++) {
            const VecI a = rows.splat(row, offset);
            ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) acc[row][v] = Form::dot(acc[row][v], a, columns[v]);
        }
    } else {
        ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) {
            const char *from = weights + column_offset(v, panel_bytes);
            typename Form::Word words[Form::WORDS];
            Form::unpack(load_int(from), words);
            if ((v * VECTOR_BYTES) % 64 == 0) prefetch(from + STREAM_AHEAD);
            ISOTOKEN_UNROLL for (int word = 0; word < Form::WORDS; word++)
                ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
                    acc[row][v] = Form::dot(acc[row][v], rows.splat(row, offset + 4 * word), words[word]);
        }
    }
}

template <class Form, int ROWS, int VECTORS>
ISOTOKEN_INLINE void multiply_steps(typename Form::Acc (&acc)[ROWS][VECTORS], const Tile &tile,
                                    const RowPointers &rows, int32_t begin, int32_t end, const char *&ahead) {
    const char *weights = tile.weights + (int64_t)begin * STEP_BYTES;
    const int64_t panel_bytes = tile.panel_bytes;
    int64_t offset = (int64_t)begin * Form::WORDS * 4;
    for (int32_t step = begin; step < end; step++) {
        if (ROWS > STREAM_ROWS) {
            prefetch_far(ahead);
            if (tile.ahead_stride > 64) prefetch_far(ahead + 64);
            ahead += tile.ahead_stride;
        }
        multiply_step<Form>(acc, rows, offset, weights, panel_bytes);
        weights += STEP_BYTES;
        offset += Form::WORDS * 4;
    }
}

/* The sums of a group, or of all inputs where there are none; not yet scaled. */
template <class Form, int ROWS, int VECTORS>
ISOTOKEN_INLINE void sum_group(VecF (&sums)[ROWS][VECTORS], const Tile &tile, const RowPointers &rows, int32_t group,
                               const char *&ahead) {
    const int32_t first = group * tile.steps_a_group, left = tile.steps - first;
    const int32_t last = first + (left < tile.steps_a_group ? left : tile.steps_a_group);
    const int32_t steps = Form::SUM_STEPS > 0 ? (int32_t)Form::SUM_STEPS : last - first;
    ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
        ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) sums[row][v] = VecF{};
    for (int32_t begin = first; begin < last; begin += steps) {
        typename Form::Acc acc[ROWS][VECTORS];
        ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++) {
            const int32_t start = tile.sums ? tile.sums[row * (int64_t)tile.ld_sums + group] : 0;
            ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) begin_with(acc[row][v], start);
        }
        multiply_steps<Form>(acc, tile, rows, begin, begin + steps, ahead);
        ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
            ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) {
                const VecF sum = as_float(acc[row][v]);
                sums[row][v] = Form::SUM_STEPS > 0 ? sums[row][v] + sum : sum;
            }
    }
}

template <class Form, int ROWS, int VECTORS>
ISOTOKEN_INLINE void multiply_groups(VecF (&total)[ROWS][VECTORS], const Tile &tile) {
    const RowPointers rows = RowPointers::at(tile);
    const char *ahead = tile.ahead;
    ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
        ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) total[row][v] = VecF{};
    for (int32_t group = 0; group * tile.steps_a_group < tile.steps; group++) {
        VecF sums[ROWS][VECTORS];
        sum_group<Form>(sums, tile, rows, group, ahead);
        ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) {
            const int64_t column = v / VECTORS_A_PANEL * tile.panel_scales + v % VECTORS_A_PANEL * LANES;
            const VecF scale = load_f16(tile.scales + (int64_t)group * PANEL + column);
            ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
                total[row][v] = fma(sums[row][v], scale, total[row][v]);
        }
    }
}

template <class Form, int ROWS, int VECTORS> __attribute__((noinline)) void run_tile(const Tile &tile) {
    VecF total[ROWS][VECTORS];
    if constexpr (Form::GROUPED) {
        multiply_groups<Form>(total, tile);
    } else if constexpr (Form::SUM_STEPS > 0) {
        const char *ahead = tile.ahead;
        sum_group<Form>(total, tile, RowPointers::at(tile), 0, ahead);
    } else {
        typename Form::Acc acc[ROWS][VECTORS];
        ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
            ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) {
                acc[row][v] = typename Form::Acc{};
                if (tile.start) acc[row][v] = (typename Form::Acc)load_int(tile.start + v * LANES);
            }
        const char *ahead = tile.ahead;
        multiply_steps<Form>(acc, tile, RowPointers::at(tile), 0, tile.steps, ahead);
        ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
            ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++) total[row][v] = as_float(acc[row][v]);
    }
    ISOTOKEN_UNROLL for (int row = 0; row < ROWS; row++)
        ISOTOKEN_UNROLL for (int v = 0; v < VECTORS; v++)
            store(tile.out + row * (int64_t)tile.ld_out + v * LANES, total[row][v]);
}

} // namespace linear
} // namespace
} // namespace isotoken
#endif
