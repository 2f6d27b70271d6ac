/* What attention does differently for each form of the K/V cache.
 *
 * Keys are 32-bit words, those of 16 tokens side by side; a query is words of the same kind. Values come in steps of
 * one token, or of a pair; so do the weights that they are multiplied by.
 */
#ifndef ISOTOKEN_CPU_ATTENTION_FORMS_H
#define ISOTOKEN_CPU_ATTENTION_FORMS_H

#include "cache.h"

namespace isotoken {
namespace {

/* Products and sums in float32. */
struct FloatCache {
    enum { DIMS_A_WORD = 1, TOKENS_A_STEP = 1, VALUE_BYTES = 4, HAS_SCALES = 0 };
    typedef VecF Score;
    typedef VecF Value;

    ISOTOKEN_INLINE VecF start(int32_t) { return VecF{}; }
    ISOTOKEN_INLINE VecF multiply(VecF score, VecI key, VecI query) { return fma((VecF)key, (VecF)query, score); }
    ISOTOKEN_INLINE VecF finish(VecF score) { return score; }
    ISOTOKEN_INLINE VecF load_value(const char *from) { return load((const float *)from); }
    ISOTOKEN_INLINE VecF weigh(VecF sum, VecI weight, VecF value) { return fma((VecF)weight, value, sum); }
    ISOTOKEN_INLINE void store_weights(int32_t *weights, int token, VecF w) { store((float *)weights + token, w); }
};

/* Products of bfloat16, weights rounded to it too, sums in float32. */
struct Bf16Cache {
    enum { DIMS_A_WORD = 2, TOKENS_A_STEP = 2, VALUE_BYTES = 4, HAS_SCALES = 0 };
    typedef VecF Score;
    typedef VecI Value;

    ISOTOKEN_INLINE VecF start(int32_t) { return VecF{}; }
    ISOTOKEN_INLINE VecF multiply(VecF score, VecI key, VecI query) { return dot_bf16(score, key, query); }
    ISOTOKEN_INLINE VecF finish(VecF score) { return score; }
    ISOTOKEN_INLINE VecI load_value(const char *from) { return load_int(from); }
    ISOTOKEN_INLINE VecF weigh(VecF sum, VecI weight, VecI value) { return dot_bf16(sum, weight, value); }
    ISOTOKEN_INLINE void store_weights(int32_t *weights, int token, VecF w) {
        store_bf16((uint16_t *)weights + token, w);
    }
};

/* Scores are exact sums of int8 products: the query is rounded to int8 too, which about doubles the (squared) error of
 * int8 keys. Weights, times the values' scales, and their sums are float32. */
struct Int8Cache {
    enum { DIMS_A_WORD = 4, TOKENS_A_STEP = 1, VALUE_BYTES = 1, HAS_SCALES = 1 };
    typedef VecI Score;
    typedef VecF Value;

    /* Keys get 128 added to have no sign; `query_sum` times 128 is taken off beforehand. */
    ISOTOKEN_INLINE VecI start(int32_t query_sum) { return splat_int(-128 * query_sum); }
    ISOTOKEN_INLINE VecI multiply(VecI score, VecI key, VecI query) {
        return dot_u8s8(score, key ^ (int32_t)0x80808080, query);
    }
    ISOTOKEN_INLINE VecF finish(VecI score) { return to_float(score); }
    ISOTOKEN_INLINE VecF load_value(const char *from) { return to_float(load_bytes(from)); }
    ISOTOKEN_INLINE VecF weigh(VecF sum, VecI weight, VecF value) { return fma((VecF)weight, value, sum); }
    ISOTOKEN_INLINE void store_weights(int32_t *weights, int token, VecF w) { store((float *)weights + token, w); }
};

} // namespace
} // namespace isotoken

#endif
