/* What becomes of a row of a panel once it is summed up: scales, bias, and one of the epilogues. */
#ifndef ISOTOKEN_CPU_LINEAR_EPILOGUE_H
#define ISOTOKEN_CPU_LINEAR_EPILOGUE_H

#include "activation.h"

namespace isotoken {
namespace {
namespace linear {

enum { PANEL_VECTORS = PANEL / LANES };

inline void put(const Linear &op, int64_t at, VecF values, int32_t count) {
    if (count <= 0) return;
    if (op.out_form == FORM_F32) {
        store_some((float *)op.out + at, values, count);
    } else if (count >= LANES) {
        store_bf16((uint16_t *)op.out + at, values);
    } else {
        alignas(64) uint16_t rounded[LANES];
        store_bf16(rounded, values);
        memcpy((uint16_t *)op.out + at, rounded, (size_t)count * sizeof *rounded);
    }
}

/* Multiply integers' sums by their scales, and add the bias. */
inline void scale_row(const Linear &op, int32_t row, int32_t panel, const float *sums, VecF *values) {
    const bool scaled_rows = op.weights.form == FORM_I8 || op.weights.form == FORM_I4_A8;
    const float *output_scales = op.weights.form == FORM_I8 ? (const float *)op.weights.scales + panel * PANEL : nullptr;
    for (int v = 0; v < PANEL_VECTORS; v++) {
        VecF value = load(sums + v * LANES);
        if (scaled_rows) value *= splat(op.input.scales[row]);
        if (output_scales) value *= load(output_scales + v * LANES);
        if (op.bias) value += load(op.bias + panel * PANEL + v * LANES);
        values[v] = value;
    }
}

inline void finish_gated(const Linear &op, int32_t row, int32_t panel, const VecF *values) {
    const int32_t first = panel * (PANEL / 2), filled = (op.num_outputs + 31) / 32 * 32;
    const int64_t at = (int64_t)row * op.ld_out + first;
    for (int v = 0; v < PANEL_VECTORS / 2; v++) {
        const VecF value = activate(op.activation, values[v]) * values[v + PANEL_VECTORS / 2];
        put(op, at + v * LANES, value, op.num_outputs - first - v * LANES);
    }
    if (op.num_outputs > first + PANEL / 2) return; /* not the last panel */
    for (int32_t i = op.num_outputs; i < filled; i++) put(op, (int64_t)row * op.ld_out + i, splat(0.0f), 1);
}

inline void finish_row(const Linear &op, int32_t row, int32_t panel, const float *sums) {
    VecF values[PANEL_VECTORS];
    scale_row(op, row, panel, sums, values);
    if (op.epilogue == EPI_GATE) {
        finish_gated(op, row, panel, values);
        return;
    }
    const int64_t at = (int64_t)row * op.ld_out + panel * PANEL;
    for (int v = 0; v < PANEL_VECTORS; v++) {
        VecF value = values[v] * splat(op.factor);
        const int32_t count = op.num_outputs - panel * PANEL - v * LANES;
        if (op.epilogue == EPI_ADD)
            value += load_some((const float *)op.out + at + v * LANES, count);
        else if (op.cap != 0.0f)
            value = splat(op.cap) * vtanh(value / splat(op.cap));
        put(op, at + v * LANES, value, count);
    }
}

} // namespace linear
} // namespace
} // namespace isotoken
#endif
