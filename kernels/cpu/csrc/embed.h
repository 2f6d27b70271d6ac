/* Embed: each token's row of the table, widened and scaled. */
#ifndef ISOTOKEN_CPU_EMBED_H
#define ISOTOKEN_CPU_EMBED_H

#include "operand.h"
#include "worker.h"

namespace isotoken {
namespace {

inline float widened(const float *from) { return *from; }
inline float widened_bf16(const uint16_t *from) { return from_bf16(*from); }
inline float widened_f16(const uint16_t *from) { return from_f16(*from); }

template <class Stored>
inline void embed_row(const Embed &op, int64_t token, int32_t id, float (*widen)(const Stored *)) {
    const Stored *from = (const Stored *)op.table + (int64_t)id * op.size;
    float *x = op.x + token * op.ld;
    for (int i = 0; i < op.size; ++i)
        x[i] = op.scale * widen(from + i);
    for (int i = op.size; i < filled_up(op.size); ++i)
        x[i] = 0.0f;
}

bool run_embed(const Embed &op, const Step &step, Worker &worker) {
    const Range tokens = share_of(step.num_tokens, worker);
    for (int64_t token = tokens.begin; token < tokens.end; ++token) {
        const int32_t id = step.input_ids[token];
        switch (op.form) {
        case FORM_F32: embed_row<float>(op, token, id, widened); break;
        case FORM_BF16: embed_row<uint16_t>(op, token, id, widened_bf16); break;
        case FORM_F16: embed_row<uint16_t>(op, token, id, widened_f16); break;
        }
    }
    return true;
}

} // namespace
} // namespace isotoken

#endif
