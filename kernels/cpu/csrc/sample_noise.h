/* Gumbel noise from Philox4x32-10, keyed by (seed, position, token): core/sampling.py's philox4x32_10 and gumbel. */
#ifndef ISOTOKEN_CPU_SAMPLE_NOISE_H
#define ISOTOKEN_CPU_SAMPLE_NOISE_H

#include "sample_vector.h"

#include <math.h>

namespace isotoken {
namespace {
namespace sampling {

constexpr int ROUNDS = 10;
constexpr uint32_t FIRST_FACTOR = 0xD2511F53, SECOND_FACTOR = 0xCD9E8D57;

/* The random words of one (seed, position): four for each counter, a counter being a token id / 4. */
struct Philox {
    uint64_t keys[ROUNDS][2]; /* each below 2**32 */
    uint64_t position[2];

    Philox(uint64_t seed, int64_t at) {
        uint32_t low = (uint32_t)seed, high = (uint32_t)(seed >> 32);
        for (auto &key : keys) {
            key[0] = low, key[1] = high;
            low += 0x9E3779B9, high += 0xBB67AE85;
        }
        position[0] = (uint32_t)at, position[1] = (uint64_t)at >> 32;
    }

    /* `COUNT` vectors of counters side by side, so that multiplications of the one fill the wait for the other's.
     * High halves of the words are left as they come. */
    template <int COUNT> void words(const VecW (&counters)[COUNT], VecW (&out)[COUNT][4]) const {
        for (int i = 0; i < COUNT; i++) {
            out[i][0] = counters[i];
            out[i][1] = VecW{} + position[0];
            out[i][2] = VecW{} + position[1];
            out[i][3] = VecW{};
        }
#pragma GCC unroll 10
        for (int round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 4
            for (int i = 0; i < COUNT; i++) {
                VecW(&word)[4] = out[i];
                const VecW first = multiply(word[0], VecW{} + (uint64_t)FIRST_FACTOR);
                const VecW second = multiply(word[2], VecW{} + (uint64_t)SECOND_FACTOR);
                word[0] = (second >> 32) ^ word[1] ^ keys[round][0];
                word[2] = (first >> 32) ^ word[3] ^ keys[round][1];
                word[1] = second, word[3] = first;
            }
        }
    }

    /* The word of one token. */
    uint32_t word(int32_t token) const {
        uint64_t c0 = (uint64_t)(token >> 2), c1 = position[0], c2 = position[1], c3 = 0;
        for (const auto &key : keys) {
            const uint64_t first = (uint32_t)c0 * (uint64_t)FIRST_FACTOR;
            const uint64_t second = (uint32_t)c2 * (uint64_t)SECOND_FACTOR;
            c0 = (second >> 32) ^ c1 ^ key[0], c2 = (first >> 32) ^ c3 ^ key[1];
            c1 = (uint32_t)second, c3 = (uint32_t)first;
        }
        const uint64_t all[4] = {c0, c1, c2, c3};
        return (uint32_t)all[token & 3];
    }
};

/* -log(-log(u)) of the uniform that a word stands for, u = ((word >> 9) + 0.5) / 2**23; each logarithm to float32. */
inline float noise_of(uint32_t word) {
    const double uniform = ((double)(word >> 9) + 0.5) * 0x1p-23;
    const float inner = (float)-log(uniform);
    return (float)-log((double)inner);
}

} // namespace sampling
} // namespace
} // namespace isotoken
#endif
