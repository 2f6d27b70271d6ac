/* One of the threads that run a program, as an operation sees it. */
#ifndef ISOTOKEN_CPU_WORKER_H
#define ISOTOKEN_CPU_WORKER_H

#include "program.h"

#include <stddef.h>

namespace isotoken {

struct Worker {
    int32_t thread, num_threads;
    Team *team;

    /* Wait for all other threads of the team; all of them call it, the same number of times. */
    void barrier();

    /* Memory of this thread's own, aligned to 64 bytes, which the next call may change; nullptr: there is none. */
    void *scratch(size_t bytes);
};

/* A run of rows, units or whatever is dealt out. */
struct Range {
    int32_t begin, end;
};

static inline Range row_range(const Head &head, const Step &step) {
    switch (head.rows) {
    case ROWS_TOKENS:
        return {0, step.num_tokens};
    case ROWS_EXPERT:
        return {head.routing->starts[head.expert], head.routing->starts[head.expert + 1]};
    case ROWS_ROUTED:
        return {0, head.routing->starts[head.routing->num_experts]};
    default:
        return {0, step.num_logits};
    }
}

/* This thread's share of `count` things, in order. */
static inline Range share_of(int32_t count, const Worker &worker) {
    return {(int32_t)((int64_t)count * worker.thread / worker.num_threads),
            (int32_t)((int64_t)count * (worker.thread + 1) / worker.num_threads)};
}

} // namespace isotoken
#endif
