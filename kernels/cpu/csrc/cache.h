/* K/V memory: where a piece of 16 tokens lies, and how a token's key and value are written into it. */
#ifndef ISOTOKEN_CPU_CACHE_H
#define ISOTOKEN_CPU_CACHE_H

#include "operand.h"

namespace isotoken {
namespace {

inline int padded_dim(const Cache &cache) { return (cache.head_dim + 15) & ~15; }

/* The number of the piece of one K/V head that holds `offset` tokens into a block. */
inline int64_t piece_index(const Cache &cache, int64_t block, int offset, int kv_head) {
    return (block * (cache.block_size / TOKENS_A_BLOCK) + offset / TOKENS_A_BLOCK) * cache.num_kv_heads + kv_head;
}

/* Bytes of a piece of keys, or of values. */
inline int64_t piece_bytes(const Cache &cache) {
    const int element = cache.form == FORM_F32 ? 4 : cache.form == FORM_BF16 ? 2 : 1;
    return (int64_t)TOKENS_A_BLOCK * padded_dim(cache) * element;
}

/* Ask for the lines that a token's keys and values go to. `piece` is that of K/V head 0: the others lie behind it.
 * (Inlined always: gcc drops calls of a function that does nothing but this.) */
ISOTOKEN_INLINE void prefetch_slot(const Cache &cache, int64_t piece, int token) {
    const int64_t bytes = piece_bytes(cache);
    const int tokens_a_row = cache.form == FORM_BF16 ? 2 : 1, row_bytes = (int)bytes * tokens_a_row / TOKENS_A_BLOCK;
    const char *keys = (const char *)cache.keys + piece * bytes;
    const char *values = (const char *)cache.values + piece * bytes + token / tokens_a_row * row_bytes;
    for (int64_t i = 0; i < cache.num_kv_heads * bytes; i += 64)
        __builtin_prefetch(keys + i, 1, 2);
    for (int head = 0; head < cache.num_kv_heads; head++)
        for (int i = 0; i < row_bytes; i += 64)
            __builtin_prefetch(values + head * bytes + i, 1, 2);
}

/* Keys in every form are 32-bit words, those of 16 tokens side by side: a float, 2 bfloat16 or 4 int8 of a token. */
inline void scatter_words(uint32_t *to, const void *row, int num_words) {
    for (int i = 0; i < num_words; ++i)
        memcpy(to + i * TOKENS_A_BLOCK, (const char *)row + 4 * i, 4);
}

/* A key of `padded_dim` floats into place `token` of a piece. */
inline void write_key(const Cache &cache, int64_t piece, int token, const float *key) {
    const int dim = padded_dim(cache);
    uint32_t *to = (uint32_t *)((char *)cache.keys + piece * piece_bytes(cache)) + token;
    alignas(64) uint16_t rounded[MAX_HEAD_DIM];
    switch (cache.form) {
    case FORM_F32: return scatter_words(to, key, dim);
    case FORM_BF16:
        for (int i = 0; i < dim; i += LANES)
            store_bf16(rounded + i, load(key + i));
        return scatter_words(to, rounded, dim / 2);
    case FORM_I8:
        cache.key_scales[piece * TOKENS_A_BLOCK + token] = quantise_row(PlainRow{key}, dim, (int8_t *)rounded);
        return scatter_words(to, rounded, dim / 4);
    }
}

inline void write_value(const Cache &cache, int64_t piece, int token, const float *value) {
    const int dim = padded_dim(cache);
    char *to = (char *)cache.values + piece * piece_bytes(cache);
    switch (cache.form) {
    case FORM_F32: memcpy((float *)to + token * dim, value, dim * sizeof(float)); return;
    case FORM_BF16: {
        alignas(64) uint16_t rounded[MAX_HEAD_DIM];
        for (int i = 0; i < dim; i += LANES)
            store_bf16(rounded + i, load(value + i));
        /* another thread may write the neighbour of the pair at the same time, so no wider stores */
        uint16_t *pairs = (uint16_t *)to + token / 2 * 2 * dim + token % 2;
        for (int i = 0; i < dim; ++i)
            pairs[2 * i] = rounded[i];
        return;
    }
    case FORM_I8:
        cache.value_scales[piece * TOKENS_A_BLOCK + token] =
            quantise_row(PlainRow{value}, dim, (int8_t *)to + token * dim);
        return;
    }
}

} // namespace
} // namespace isotoken

#endif
