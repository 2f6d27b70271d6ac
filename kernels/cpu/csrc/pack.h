/* Packing: rows of a matrix come to lie in panels, as program.h lays them out. */
#ifndef ISOTOKEN_CPU_PACK_H
#define ISOTOKEN_CPU_PACK_H

#include "linear_panels.h"
#include "pack_rows.h"

namespace isotoken {
namespace {
namespace packing {

/* What one thread needs for a row. */
struct PackedRow {
    float *floats;     /* [filled] */
    int8_t *integers;  /* [filled] */
    uint32_t *words;   /* [steps] */
    uint16_t *scales;  /* [groups] */
    float scale;       /* FORM_I8 */
};

/* Of integers that were quantised elsewhere, take values and scales as they are. */
inline void take_integers(const PackJob &job, int32_t row, int32_t filled, int32_t groups, PackedRow &out) {
    const int32_t inputs = row < 0 ? 0 : job.packed.inputs;
    memset(out.integers, 0, (size_t)filled);
    if (inputs) memcpy(out.integers, job.integers + row * job.ld, (size_t)inputs);
    if (job.packed.form == FORM_I8) out.scale = inputs ? job.scales[row] : 1.0f;
    else
        for (int32_t g = 0; g < groups; g++)
            out.scales[g] = to_f16(inputs ? job.scales[(int64_t)row * groups + g] : 1.0f);
}

inline void quantise(const Weights &packed, int32_t filled, int32_t groups, PackedRow &out) {
    if (packed.form == FORM_I8) {
        out.scale = quantise_row(out.floats, filled, out.integers);
        return;
    }
    const float half = packed.form == FORM_I8_GROUPS ? 128.0f : 8.0f;
    for (int32_t g = 0; g < groups; g++) {
        const int32_t begin = g * packed.group, left = filled - begin, size = left < packed.group ? left : packed.group;
        out.scales[g] = quantise_group(out.floats + begin, size, half, out.integers + begin);
    }
}

inline void make_row(const PackJob &job, int32_t row, int32_t filled, int32_t groups, PackedRow &out) {
    if (job.integers) {
        take_integers(job, row, filled, groups, out);
    } else {
        read_row(job, row, filled, out.floats);
        if (job.packed.form == FORM_F32 || job.packed.form == FORM_BF16) {
            floats_to_words(job.packed.form, out.floats, filled, out.words);
            return;
        }
        quantise(job.packed, filled, groups, out);
    }
    integers_to_words(job.packed.form, out.integers, filled, out.words);
}

/* Put a row where output `column` of a panel lies. */
inline void put_row(const Weights &packed, int32_t panel, int32_t column, int32_t filled, int32_t groups,
                    const PackedRow &row) {
    const int32_t steps = filled / linear::inputs_a_step(packed.form);
    uint32_t *to = (uint32_t *)packed.values + (int64_t)panel * steps * PANEL + column;
    for (int32_t step = 0; step < steps; step++) to[(int64_t)step * PANEL] = row.words[step];
    if (packed.form == FORM_I8) {
        int32_t sum = 0;
        for (int32_t k = 0; k < filled; k++) sum += row.integers[k];
        ((float *)packed.scales)[panel * PANEL + column] = row.scale;
        ((int32_t *)packed.sums)[panel * PANEL + column] = -128 * sum;
    }
    uint16_t *scales = (uint16_t *)packed.scales + (int64_t)panel * groups * PANEL + column;
    for (int32_t g = 0; g < groups; g++) scales[(int64_t)g * PANEL] = row.scales[g];
}

} // namespace packing

inline bool pack_panels(const PackJob &job, Worker &worker) {
    const Weights &packed = job.packed;
    const int32_t filled = linear::divide_up(packed.inputs, 32) * 32;
    const int32_t groups = linear::in_groups(packed.form) ? linear::divide_up(filled, packed.group) : 0;
    char *memory = (char *)worker.scratch((size_t)filled * 16);
    if (!memory) return false;
    packing::PackedRow row = {(float *)memory, (int8_t *)(memory + (int64_t)filled * 4),
                              (uint32_t *)(memory + (int64_t)filled * 8), (uint16_t *)(memory + (int64_t)filled * 12),
                              0.0f};
    const Range panels = share_of(linear::divide_up(packed.outputs, PANEL), worker);
    for (int32_t panel = panels.begin; panel < panels.end; panel++)
        for (int32_t column = 0; column < PANEL; column++) {
            const int32_t output = panel * PANEL + column;
            const int32_t source = output >= packed.outputs ? -1 : job.order ? job.order[output] : output;
            packing::make_row(job, source, filled, groups, row);
            packing::put_row(packed, panel, column, filled, groups, row);
        }
    return true;
}

} // namespace
} // namespace isotoken
#endif
