/* The C interface of the sampler: one call draws, or scores, a token for each row of logits.
 *
 * What it computes is core/sampling.py's HostSampler, row by row; a row's result depends on nothing but that row and the
 * instruction set, not on the number of threads: sums of one set and another may differ in their last digits. The arrays are those of core.batch.SamplingRows.
 */
#ifndef ISOTOKEN_CPU_SAMPLE_H
#define ISOTOKEN_CPU_SAMPLE_H

#include "program.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const float *logits; /* [L, ld], of which vocab_size count; never written to */
    int64_t ld;
    int32_t num_rows, vocab_size;
    const float *temperature;    /* [L] */
    const int32_t *top_k;        /* [L] */
    const float *top_p, *min_p;  /* [L] */
    const uint64_t *seeds;       /* [L] */
    const int64_t *positions;    /* [L] */
    const int32_t *target_ids;   /* [L] */
    const int32_t *num_logprobs; /* [L] */
    const int32_t *penalty_rows, *penalty_ids; /* [P], rows ascending */
    const float *penalty_values;
    const int32_t *bias_rows, *bias_ids; /* [M], rows ascending */
    const float *bias_values;
    const uint32_t *mask; /* [L, ceil(vocab_size / 32)] or NULL */
    int32_t num_penalties, num_biases;
    int32_t *token_ids; /* [L] */
    float *logprobs;    /* [L]; this and what follows are written for rows that asked alone */
    int32_t *ranks;     /* [L] */
    int32_t *top_ids;   /* [L, num_top] */
    float *top_logprobs;
    int64_t num_top;
    void *scratch;      /* isotoken_sample_scratch bytes, aligned to 64; nothing in it is kept */
} SampleArgs;

/* Bytes of scratch memory for one call with a team of that many threads. */
int64_t isotoken_sample_scratch(int32_t num_threads, int32_t vocab_size);

/* Sample with all threads of a team. Returns a Status. */
int32_t isotoken_sample(Team *team, const SampleArgs *args);

/* The noise [n] of the tokens from `first` on, as isotoken_sample adds it. */
void isotoken_sample_noise(uint64_t seed, int64_t position, int32_t first, int32_t n, float *noise);

#ifdef __cplusplus
}
#endif
#endif
