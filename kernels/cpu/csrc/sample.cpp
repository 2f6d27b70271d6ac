/* The C interface of the sampler. */
#include "dispatch.h"
#include "kernels.h"
#include "sample_rows.h"
#include "team.h"

#define ISOTOKEN_EXPORT extern "C" __attribute__((visibility("default")))

using namespace isotoken;

ISOTOKEN_EXPORT int64_t isotoken_sample_scratch(int32_t num_threads, int32_t vocab_size) {
    return sampling::scratch_bytes(num_threads, vocab_size);
}

ISOTOKEN_EXPORT int32_t isotoken_sample(Team *team, const SampleArgs *args) {
    *(int32_t *)args->scratch = 0;
    auto together = [](void *argument, Worker &worker) {
        worker.team->kernels.sample(*(const SampleArgs *)argument, worker);
    };
    return guarded([&] {
        team->run(together, (void *)args);
        return STATUS_DONE;
    });
}

ISOTOKEN_EXPORT void isotoken_sample_noise(uint64_t seed, int64_t position, int32_t first, int32_t n, float *noise) {
    const sampling::Philox philox(seed, position);
    for (int32_t i = 0; i < n; i++) noise[i] = sampling::noise_of(philox.word(first + i));
}
