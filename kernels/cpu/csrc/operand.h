/* Rows of activations in the forms that a Linear reads. See program.h's Operand and twins/operand.py. */
#ifndef ISOTOKEN_CPU_OPERAND_H
#define ISOTOKEN_CPU_OPERAND_H

#include "program.h"
#include "vector_math.h"

namespace isotoken {
namespace {

inline int filled_up(int size) { return (size + 31) & ~31; }

const float SMALLEST_SCALE = 1.17549435e-38f; /* below it reciprocals overflow, and a row is as good as zeros */

const int32_t INFINITE_BITS = 0x7f800000;

/* What a row may be made of: at(i, count) are its elements from i on, zeros from the count-th. */
struct PlainRow {
    const float *x;
    VecF at(int i, int count) const { return load_some(x + i, count); }
};

/* Not a number where an element is not finite: so is then whatever the row is multiplied with. Sizes are compared by
 * their bits, among which what is not a number is the largest. */
template <class Row> inline float int8_scale(const Row &row, int size) {
    VecI largest = {};
    for (int i = 0; i < size; i += LANES)
        largest = larger_int(largest, (VecI)vabs(row.at(i, size - i)));
    const int32_t bits = largest_lane(largest);
    if (bits >= INFINITE_BITS) return __builtin_nanf("");
    float magnitude;
    memcpy(&magnitude, &bits, sizeof bits);
    const float scale = magnitude / 127.0f;
    return scale >= SMALLEST_SCALE ? scale : 1.0f;
}

/* Lanes to bytes and back; gcc 12 makes poor code of its own conversions. */
ISOTOKEN_INLINE void store_bytes(void *to, VecI values) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)values));
#else
    typedef int8_t Bytes __attribute__((vector_size(LANES)));
    const Bytes bytes = __builtin_convertvector(values, Bytes);
    memcpy(to, &bytes, LANES);
#endif
}

ISOTOKEN_INLINE VecI load_bytes(const void *from) {
#if defined(__AVX512F__)
    return (VecI)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from));
#elif defined(__AVX2__)
    return (VecI)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from));
#else
    typedef int8_t Bytes __attribute__((vector_size(LANES)));
    Bytes bytes;
    memcpy(&bytes, from, LANES);
    return __builtin_convertvector(bytes, VecI);
#endif
}

/* Store q as int8, filled up with zeros to a multiple of LANES; returns the scale. Of a row that is not finite, q is 0. */
template <class Row> inline float quantise_row(const Row &row, int size, int8_t *to) {
    const float scale = int8_scale(row, size);
    if (scale != scale) {
        memset(to, 0, (size_t)((size + LANES - 1) / LANES * LANES));
        return scale;
    }
    const VecF inverse = splat(1.0f / scale);
    for (int i = 0; i < size; i += LANES)
        store_bytes(to + i, to_int(row.at(i, size - i) * inverse));
    return scale;
}

template <class Row> inline void write_floats(const Operand &out, int64_t index, int size, const Row &row) {
    float *to = (float *)out.values + index * out.ld;
    for (int i = 0; i < filled_up(size); i += LANES)
        store(to + i, row.at(i, size - i));
}

template <class Row> inline void write_bf16(const Operand &out, int64_t index, int size, const Row &row) {
    uint16_t *to = (uint16_t *)out.values + index * out.ld;
    for (int i = 0; i < filled_up(size); i += LANES)
        store_bf16(to + i, row.at(i, size - i));
}

template <class Row> inline void write_offset_int8(const Operand &out, int64_t index, int size, const Row &row) {
    uint8_t *to = (uint8_t *)out.values + index * out.ld;
    const float scale = int8_scale(row, size);
    const VecF inverse = splat(1.0f / scale);
    out.scales[index] = scale;
    if (scale != scale) {
        memset(to, 128, (size_t)filled_up(size));
        return;
    }
    for (int i = 0; i < filled_up(size); i += LANES)
        store_bytes(to + i, to_int(row.at(i, size - i) * inverse) + 128);
}

template <class Row> inline void write_summed_int8(const Operand &out, int64_t index, int size, const Row &row) {
    const int width = filled_up(size), num_groups = (width + out.group - 1) / out.group;
    int8_t *to = (int8_t *)out.values + index * out.ld;
    int32_t *sums = out.sums + index * num_groups;
    const float scale = int8_scale(row, size);
    const VecF inverse = splat(1.0f / scale);
    out.scales[index] = scale;
    if (scale != scale) {
        memset(to, 0, (size_t)width);
        memset(sums, 0, (size_t)num_groups * sizeof *sums);
        return;
    }
    for (int begin = 0; begin < width; begin += out.group) {
        const int end = begin + out.group < width ? begin + out.group : width;
        VecI sum = {};
        for (int i = begin; i < end; i += LANES) {
            const VecI q = to_int(row.at(i, size - i) * inverse);
            store_bytes(to + i, q);
            sum += q;
        }
        *sums++ = -8 * sum_of_lanes(sum);
    }
}

template <class Row> inline void write_row(const Operand &out, int64_t index, int size, const Row &row) {
    switch (out.form) {
    case FORM_F32: return write_floats(out, index, size, row);
    case FORM_BF16: return write_bf16(out, index, size, row);
    case FORM_I8: return write_offset_int8(out, index, size, row);
    case FORM_I8_SUMMED: return write_summed_int8(out, index, size, row);
    }
}

} // namespace
} // namespace isotoken

#endif
