/* Heads: projections split into heads, normed, rotated, scaled; keys and values go to their slots. */
#ifndef ISOTOKEN_CPU_HEADS_H
#define ISOTOKEN_CPU_HEADS_H

#include "cache.h"
#include "norm.h"
#include "worker.h"

namespace isotoken {
namespace {

/* A token's inverse root mean squares where the norm is over whole projections. */
struct ProjectionNorms {
    int64_t token = -1;
    float queries = 0.0f, keys = 0.0f;
};

inline void norm_head(float *head, int dim, const float *weight, float inverse) {
    for (int i = 0; i < dim; ++i)
        head[i] = head[i] * inverse * weight[i];
}

/* Turn the leading 2 * half dimensions; `turn` has their cosines, then their sines. */
inline void rotate_head(float *__restrict head, const float *__restrict turn, int half) {
    for (int i = 0; i < half; ++i) {
        const float first = head[i], second = head[half + i];
        head[i] = first * turn[i] - second * turn[half + i];
        head[half + i] = second * turn[i] + first * turn[half + i];
    }
}

inline void write_query(const Heads &op, int64_t token, int index, float *head) {
    const int dim = op.cache.head_dim;
    const int64_t place = token * op.ld_queries + (int64_t)index * dim;
    for (int i = 0; i < dim; ++i)
        head[i] *= op.query_scale;
    if (op.cache.form == FORM_F32) {
        memcpy((float *)op.queries + place, head, dim * sizeof(float));
        return;
    }
    alignas(64) uint16_t rounded[MAX_HEAD_DIM];
    for (int i = 0; i < dim; i += LANES)
        store_bf16(rounded + i, load(head + i));
    memcpy((uint16_t *)op.queries + place, rounded, dim * sizeof(uint16_t));
}

/* Norm and rotate a query or key head; `index` counts within its projection. */
inline void position_head(const Heads &op, const Step &step, int64_t token, int index, const float *weight,
                          float projection_norm, float *head) {
    const int dim = op.cache.head_dim;
    if (weight && op.norm_all)
        norm_head(head, dim, weight + (int64_t)index * dim, projection_norm);
    else if (weight)
        norm_head(head, dim, weight, inverse_rms(head, dim, op.eps));
    if (op.rotations)
        rotate_head(head, op.rotations + (int64_t)step.positions[token] * op.rotary_dim, op.rotary_dim / 2);
}

inline ProjectionNorms norms_of(const Heads &op, int64_t token, const float *row) {
    const int dim = op.cache.head_dim, q_size = op.num_heads * dim, kv_size = op.cache.num_kv_heads * dim;
    ProjectionNorms norms;
    norms.token = token;
    norms.queries = op.q_norm ? inverse_rms(row, q_size, op.eps) : 0.0f;
    norms.keys = op.k_norm ? inverse_rms(row + q_size, kv_size, op.eps) : 0.0f;
    return norms;
}

bool run_heads(const Heads &op, const Step &step, Worker &worker) {
    const Cache &cache = op.cache;
    const int dim = cache.head_dim, kv_heads = cache.num_kv_heads, num_heads = op.num_heads;
    const int heads_a_token = num_heads + 2 * kv_heads;
    if (dim > MAX_HEAD_DIM)
        return false;
    alignas(64) float head[MAX_HEAD_DIM] = {};
    ProjectionNorms norms;
    int64_t fetched = -1; /* the piece last asked for */
    const Range units = share_of(step.num_tokens * heads_a_token, worker);
    for (int32_t unit = units.begin; unit < units.end; ++unit) {
        const int32_t token = unit / heads_a_token, index = unit % heads_a_token;
        const float *row = op.qkv + (int64_t)token * op.ld;
        const int32_t slot = step.slot_mapping[token], offset = slot % cache.block_size;
        const int place = offset % TOKENS_A_BLOCK;
        const int64_t piece = piece_index(cache, slot / cache.block_size, offset, 0);
        if (piece != fetched)
            prefetch_slot(cache, piece, place);
        fetched = piece;
        if (op.norm_all && norms.token != token)
            norms = norms_of(op, token, row);
        memcpy(head, row + (int64_t)index * dim, dim * sizeof(float)); /* beyond it zeros stay */
        if (index < num_heads) {
            position_head(op, step, token, index, op.q_norm, norms.queries, head);
            write_query(op, token, index, head);
        } else if (index < num_heads + kv_heads) {
            const int kv_head = index - num_heads;
            position_head(op, step, token, kv_head, op.k_norm, norms.keys, head);
            write_key(cache, piece + kv_head, place, head);
        } else {
            const int kv_head = index - num_heads - kv_heads;
            write_value(cache, piece + kv_head, place, head);
        }
    }
    return true;
}

} // namespace
} // namespace isotoken

#endif
