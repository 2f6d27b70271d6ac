/* Route, Gather and Combine: a mixture of experts' way from tokens to experts and back. */
#ifndef ISOTOKEN_CPU_ROUTE_H
#define ISOTOKEN_CPU_ROUTE_H

#include "norm.h"

namespace isotoken {
namespace {

/* The expert that comes after `last` in order of falling logits, ties by rising index; last -1: the first. */
inline int next_best(const float *logits, int num_experts, int last) {
    int best = -1;
    for (int e = 0; e < num_experts; e++) {
        if (last >= 0 && (logits[e] > logits[last] || (logits[e] == logits[last] && e <= last)))
            continue;
        if (best < 0 || logits[e] > logits[best])
            best = e;
    }
    return best < 0 ? 0 : best; /* where logits are no numbers, anything will do */
}

/* Choose one token's experts, in rising order, and what each adds. */
inline void route_token(const Route &op, int64_t token) {
    const Routing &routing = *op.routing;
    const int num_experts = routing.num_experts, top_k = routing.top_k;
    const float *logits = op.logits + token * op.ld;
    int32_t *experts = routing.experts + token * top_k;
    float *shares = routing.shares + token * top_k;
    const int favourite = next_best(logits, num_experts, -1);
    for (int k = 0, expert = favourite; k < top_k; k++) {
        int place = k;
        for (; place > 0 && experts[place - 1] > expert; place--)
            experts[place] = experts[place - 1];
        experts[place] = expert;
        if (k + 1 < top_k)
            expert = next_best(logits, num_experts, expert);
    }
    float total = 0.0f;
    for (int e = 0; e < num_experts && !op.normalize; e++)
        total += exp_of(logits[e] - logits[favourite]);
    for (int k = 0; k < top_k; k++) {
        shares[k] = exp_of(logits[experts[k]] - logits[favourite]);
        if (op.normalize)
            total += shares[k];
    }
    for (int k = 0; k < top_k; k++)
        shares[k] /= total;
}

/* Give every choice a place, sorted by expert, then by token. */
inline void sort_places(const Routing &routing, int32_t num_tokens) {
    int32_t *starts = routing.starts;
    memset(starts, 0, (routing.num_experts + 1) * sizeof(int32_t));
    const int64_t num_places = (int64_t)num_tokens * routing.top_k;
    for (int64_t i = 0; i < num_places; i++)
        starts[routing.experts[i] + 1]++;
    for (int e = 0; e < routing.num_experts; e++)
        starts[e + 1] += starts[e];
    for (int64_t i = 0; i < num_places; i++) { /* each expert's start moves on to its end */
        const int32_t place = starts[routing.experts[i]]++;
        routing.places[i] = place;
        routing.tokens[place] = (int32_t)(i / routing.top_k);
    }
    for (int e = routing.num_experts; e > 0; e--)
        starts[e] = starts[e - 1];
    starts[0] = 0;
}

bool run_route(const Route &op, const Step &step, Worker &worker) {
    const Range rows = row_range(op.head, step), own = own_rows(op.head, step, worker);
    for (int64_t token = own.begin; token < own.end; token++)
        route_token(op, token);
    worker.barrier();
    if (worker.thread == 0)
        sort_places(*op.routing, rows.end);
    return true;
}

bool run_gather(const Gather &op, const Step &step, Worker &worker) {
    const Routing &routing = *op.head.routing;
    const Operand &from = op.input, &to = op.out;
    const int element = from.form == FORM_F32 ? 4 : from.form == FORM_BF16 ? 2 : 1, width = filled_up(op.size);
    const int groups = from.form == FORM_I8_SUMMED ? (width + from.group - 1) / from.group : 0;
    const Range places = share_of(row_range(op.head, step).end * routing.top_k, worker);
    for (int64_t place = places.begin; place < places.end; place++) {
        const int64_t token = routing.tokens[place];
        memcpy((char *)to.values + place * to.ld * element, (const char *)from.values + token * from.ld * element,
               (size_t)width * element);
        if (element == 1)
            to.scales[place] = from.scales[token];
        memcpy(to.sums + place * groups, from.sums + token * groups, groups * sizeof(int32_t));
    }
    return true;
}

bool run_combine(const Combine &op, const Step &step, Worker &worker) {
    const Routing &routing = *op.head.routing;
    const Range tokens = own_rows(op.head, step, worker);
    for (int64_t token = tokens.begin; token < tokens.end; token++) {
        const float *shares = routing.shares + token * routing.top_k;
        const int32_t *places = routing.places + token * routing.top_k;
        float *out = op.out + token * op.ld_out;
        for (int i = 0; i < op.size; i += LANES) {
            VecF sum = {};
            for (int k = 0; k < routing.top_k; k++) {
                const float *y = op.y + (int64_t)places[k] * op.ld_y;
                sum = fma(splat(shares[k]), load_some(y + i, op.size - i), sum);
            }
            store_some(out + i, sum, op.size - i);
        }
    }
    return true;
}

} // namespace
} // namespace isotoken

#endif
