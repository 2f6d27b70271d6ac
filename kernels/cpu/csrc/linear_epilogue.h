/* What becomes of rows of a panel once they are summed up: scales, bias, and one of the epilogues. */
#ifndef ISOTOKEN_CPU_LINEAR_EPILOGUE_H
#define ISOTOKEN_CPU_LINEAR_EPILOGUE_H

#include "activation.h"

namespace isotoken {
namespace {
namespace linear {

enum { PANEL_VECTORS = PANEL / LANES };

/* What all rows of a panel have in common. */
struct Finish {
    const Linear *op;
    int32_t first, wanted; /* of the outputs that are stored: the panel's first, and how many follow it */
    bool scaled_rows;
    VecF scale[PANEL_VECTORS], bias[PANEL_VECTORS];
};

inline Finish finish_of(const Linear &op, int32_t panel) {
    const int32_t first = panel * (op.epilogue == EPI_GATE ? PANEL / 2 : PANEL);
    const float *scales = op.weights.form == FORM_I8 ? (const float *)op.weights.scales + panel * PANEL : nullptr;
    const bool scaled_rows = op.weights.form == FORM_I8 || op.weights.form == FORM_I4_A8;
    Finish finish = {&op, first, op.num_outputs - first, scaled_rows, {}, {}};
    for (int v = 0; v < PANEL_VECTORS; v++) {
        finish.scale[v] = scales ? load(scales + v * LANES) : splat(1.0f);
        finish.bias[v] = op.bias ? load(op.bias + panel * PANEL + v * LANES) : splat(0.0f);
    }
    return finish;
}

/* Store the first `count` of them. */
ISOTOKEN_INLINE void put(const Linear &op, int64_t at, VecF values, int32_t count) {
    if (op.out_form == FORM_F32) {
        store_some((float *)op.out + at, values, count);
    } else if (count >= LANES) {
        store_bf16((uint16_t *)op.out + at, values);
    } else if (count > 0) {
        alignas(64) uint16_t rounded[LANES];
        store_bf16(rounded, values);
        memcpy((uint16_t *)op.out + at, rounded, (size_t)count * sizeof *rounded);
    }
}

/* Multiplied by 1 and with 0 added where there are no scales and no bias: it changes nothing but the sign of zeros. */
ISOTOKEN_INLINE void scale_row(const Finish &finish, int32_t row, VecF *values) {
    const VecF row_scale = splat(finish.scaled_rows ? finish.op->input.scales[row] : 1.0f);
    ISOTOKEN_UNROLL for (int v = 0; v < PANEL_VECTORS; v++)
        values[v] = values[v] * row_scale * finish.scale[v] + finish.bias[v];
}

inline void finish_gated(const Finish &finish, int32_t row, const VecF *values) {
    const Linear &op = *finish.op;
    const int64_t at = (int64_t)row * op.ld_out + finish.first;
    ISOTOKEN_UNROLL for (int v = 0; v < PANEL_VECTORS / 2; v++) {
        const VecF value = activate(op.activation, values[v]) * values[v + PANEL_VECTORS / 2];
        put(op, at + v * LANES, value, finish.wanted - v * LANES);
    }
    if (finish.wanted > PANEL / 2) return; /* not the last panel */
    const int32_t filled = (op.num_outputs + 31) / 32 * 32;
    for (int32_t i = op.num_outputs; i < filled; i++) put(op, (int64_t)row * op.ld_out + i, splat(0.0f), 1);
}

inline void finish_stored(const Finish &finish, int32_t row, const VecF *values) {
    const Linear &op = *finish.op;
    const int64_t at = (int64_t)row * op.ld_out + finish.first;
    ISOTOKEN_UNROLL for (int v = 0; v < PANEL_VECTORS; v++) {
        VecF value = values[v] * splat(op.factor);
        const int32_t count = finish.wanted - v * LANES;
        if (op.epilogue == EPI_ADD)
            value += load_some((const float *)op.out + at + v * LANES, count);
        else if (op.cap != 0.0f)
            value = splat(op.cap) * vtanh(value / splat(op.cap));
        put(op, at + v * LANES, value, count);
    }
}

/* One row, whose sums `values` are. */
ISOTOKEN_INLINE void finish_row(const Finish &finish, int32_t row, VecF (&values)[PANEL_VECTORS]) {
    scale_row(finish, row, values);
    if (finish.op->epilogue == EPI_GATE)
        finish_gated(finish, row, values);
    else
        finish_stored(finish, row, values);
}

/* Rows from `row` on, whose sums lie ld apart. */
inline void finish_rows(const Finish &finish, int32_t row, int32_t count, const float *sums, int32_t ld) {
    for (int32_t r = 0; r < count; r++, sums += ld) {
        VecF values[PANEL_VECTORS];
        ISOTOKEN_UNROLL for (int v = 0; v < PANEL_VECTORS; v++) values[v] = load(sums + v * LANES);
        finish_row(finish, row + r, values);
    }
}

} // namespace linear
} // namespace
} // namespace isotoken
#endif
