/* The threads that work on one row together, and the memory they share. */
#ifndef ISOTOKEN_CPU_SAMPLE_CREW_H
#define ISOTOKEN_CPU_SAMPLE_CREW_H

#include "sample_best.h"
#include "sample_draw.h"
#include "worker.h"

namespace isotoken {
namespace {
namespace sampling {

/* A crew as one of its threads sees it. All go the same way through the code and find the same results, so nobody need
 * tell another what to do: only what each found among its own chunks of the vocabulary is exchanged. */
struct Crew {
    int32_t member, size; /* one thread alone, or all of the team */
    Worker *worker;

    void wait() const {
        if (size > 1) worker->barrier();
    }

    /* This member's of `count` things. */
    int begin(int count) const { return (int)((int64_t)count * member / size); }
    int end(int count) const { return (int)((int64_t)count * (member + 1) / size); }
};

/* Scratch memory of one crew. */
struct Workspace {
    float *maxima, *weights; /* [num_blocks] */
    double *sums;            /* [num_chunks] */
    Winner *winners;         /* [members] */
    int64_t *counts;         /* [members] */
    Bound *top;              /* what top-k keeps */
    float *edited;           /* [vocab_size] */
    Key *keys;               /* [2 * vocab_size] */

    /* Lay it out from an address on, or from 0 to see the size, which it returns. */
    int64_t lay_out(uintptr_t memory, int num_members, int vocab_size) {
        const int64_t blocks = num_blocks_of(vocab_size) + 16; /* whole vectors of any instruction set */
        int64_t end = 0;
        auto place = [&](auto *&array, int64_t count) {
            array = (decltype(+array))(memory + (uintptr_t)end);
            end = (end + count * (int64_t)sizeof *array + 63) / 64 * 64;
        };
        place(maxima, blocks), place(weights, blocks);
        place(sums, blocks / CHUNK_BLOCKS + 1);
        place(winners, num_members), place(counts, num_members), place(top, 1);
        place(edited, vocab_size), place(keys, 2 * (int64_t)vocab_size);
        return end;
    }
};

} // namespace sampling
} // namespace
} // namespace isotoken
#endif
