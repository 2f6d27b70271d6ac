/* Rows of a matrix on their way into panels: read, rounded to integers, and cut into steps of 4 bytes.
 *
 * The rounding is that of kernels/cpu/quantize.py, operation for operation.
 */
#ifndef ISOTOKEN_CPU_PACK_ROWS_H
#define ISOTOKEN_CPU_PACK_ROWS_H

#include "kernels.h"
#include "vector_math.h"

namespace isotoken {
namespace {
namespace packing {

const float SMALLEST_WEIGHT_SCALE = 1.17549435e-38f; /* below it there is no finite reciprocal */

inline uint16_t to_f16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits >= 0x47800000) return sign | 0x7c00; /* 65536: infinity */
    if (bits < 0x38800000) {                      /* subnormal: added to 0.5, it is rounded where it has to be */
        float size;
        memcpy(&size, &bits, sizeof size);
        size += 0.5f;
        memcpy(&bits, &size, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    return (uint16_t)(sign | (bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13);
}

/* Row `row` as float32, filled up with zeros; of no row, zeros alone. */
inline void read_row(const PackJob &job, int32_t row, int32_t filled, float *to) {
    const int32_t inputs = row < 0 ? 0 : job.packed.inputs;
    const int64_t at = row * job.ld;
    for (int32_t k = 0; k < inputs; k++) {
        if (job.matrix_form == FORM_F32)
            to[k] = ((const float *)job.matrix)[at + k];
        else if (job.matrix_form == FORM_BF16)
            to[k] = from_bf16(((const uint16_t *)job.matrix)[at + k]);
        else
            to[k] = from_f16(((const uint16_t *)job.matrix)[at + k]);
    }
    for (int32_t k = inputs; k < filled; k++) to[k] = 0.0f;
}

inline float usable(float scale) { return scale >= SMALLEST_WEIGHT_SCALE ? scale : 1.0f; }

/* One scale for the row: q within -127 ... 127. Returns it. */
inline float quantise_row(const float *row, int32_t size, int8_t *integers) {
    VecF largest = splat(0.0f);
    for (int32_t k = 0; k < size; k += LANES) largest = vmax(largest, vabs(load(row + k)));
    const float scale = usable(largest_lane(largest) / 127.0f);
    for (int32_t k = 0; k < size; k += LANES) {
        const VecI q = to_int(vmax(vmin(load(row + k) / splat(scale), splat(127.0f)), splat(-127.0f)));
        for (int i = 0; i < LANES; i++) integers[k + i] = (int8_t)q[i];
    }
    return scale;
}

/* One group of inputs, `half` being 2^(bits - 1). Returns its scale in float16: integers are chosen before it is rounded,
 * so they are those of any engine, whatever it keeps scales in. */
inline uint16_t quantise_group(const float *group, int32_t size, float half, int8_t *integers) {
    VecF largest = load(group), smallest = largest;
    for (int32_t k = LANES; k < size; k += LANES) {
        largest = vmax(largest, load(group + k));
        smallest = vmin(smallest, load(group + k));
    }
    const float above = largest_lane(largest) / (half - 1.0f), below = -largest_lane(-smallest) / -half;
    const float scale = usable(above > below ? above : below);
    const VecF reciprocal = splat(1.0f / scale);
    for (int32_t k = 0; k < size; k += LANES) {
        const VecF q = vmax(vmin(load(group + k) * reciprocal, splat(half - 1.0f)), splat(-half));
        const VecI rounded = to_int(q);
        for (int i = 0; i < LANES; i++) integers[k + i] = (int8_t)rounded[i];
    }
    return to_f16(scale);
}

/* Rows as the steps of a panel: `words` [steps], of floats or of integers. */
inline void floats_to_words(int32_t form, const float *row, int32_t size, uint32_t *words) {
    if (form == FORM_F32) {
        memcpy(words, row, (size_t)size * sizeof *row);
        return;
    }
    for (int32_t k = 0; k < size; k += 2) words[k / 2] = to_bf16(row[k]) | (uint32_t)to_bf16(row[k + 1]) << 16;
}

inline void integers_to_words(int32_t form, const int8_t *row, int32_t size, uint32_t *words) {
    if (form == FORM_I8 || form == FORM_I8_GROUPS) {
        memcpy(words, row, (size_t)size);
        return;
    }
    for (int32_t step = 0; step < size / 8; step++, row += 8) {
        uint32_t word = 0;
        for (int k = 0; k < 8; k++) {
            const int shift = form == FORM_I4_A8 ? 8 * (k % 4) + 4 * (k / 4) : 16 * (k % 2) + 4 * (k / 2);
            word |= (uint32_t)(row[k] + 8) << shift;
        }
        words[step] = word;
    }
}

} // namespace packing
} // namespace
} // namespace isotoken
#endif
