/* Rows of logits shared out among the threads of a team, each row drawn or scored as core/sampling.py says. */
#ifndef ISOTOKEN_CPU_SAMPLE_ROWS_H
#define ISOTOKEN_CPU_SAMPLE_ROWS_H

#include "sample_crew.h"

namespace isotoken {
namespace {
namespace sampling {

constexpr int32_t NOT_A_NUMBER = -1; /* the token of a row that holds NaN, as core/batch.py has it */

/* What one member of a crew does for rows. */
class RowSampler {
  public:
    RowSampler(const SampleArgs &given, const Crew &its_crew, const Workspace &memory)
        : args(given), crew(its_crew), space(memory), num_blocks(num_blocks_of(args.vocab_size)),
          num_chunks((num_blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS), begin(crew.begin(num_chunks) * CHUNK_BLOCKS),
          end(smaller(crew.end(num_chunks) * CHUNK_BLOCKS, num_blocks)) {}

    void wait() const { crew.wait(); }

    void sample(int index) const {
        const float *raw = args.logits + index * args.ld;
        int32_t token = args.target_ids[index];
        const Edits edits(args, index);
        const bool unedited = edits.none();
        if (token < 0) {
            const float *logits = raw;
            if (!unedited) {
                edits.apply(raw, begin * BLOCK, smaller(end * BLOCK, args.vocab_size), space.edited);
                logits = space.edited;
                crew.wait();
            }
            token = choose(Row(logits, args.vocab_size), index);
        }
        if (crew.member == 0) args.token_ids[index] = token;
        if (args.num_logprobs[index] > -2 && token != NOT_A_NUMBER) {
            const Row row(raw, args.vocab_size);
            if (!unedited || args.target_ids[index] >= 0) {
                crew.wait();
                find_maxima(row, begin, end, space.maxima);
            }
            score(row, index, token);
        }
        crew.wait(); /* before anyone writes what another may still read */
    }

  private:
    const SampleArgs &args;
    const Crew crew;
    const Workspace space;
    const int num_blocks, num_chunks;
    const int begin, end; /* this member's blocks */

    int32_t choose(const Row &row, int index) const {
        find_maxima(row, begin, end, space.maxima);
        crew.wait();
        const int32_t best = find_best(row, space.maxima);
        const float temperature = args.temperature[index], best_x = row.logits[best];
        if (best_x != best_x) return NOT_A_NUMBER;
        if (!(temperature > 0) || !is_finite(best_x)) return best; /* greedy, or nothing is allowed */
        const View view(row, space.maxima, space.weights, temperature, best_x);
        if (!is_finite(view.best_y)) return view.best; /* a temperature near zero: the infinite share the first place */
        view.weigh(begin, end);
        return draw(view, index);
    }

    int32_t draw(const View &view, int index) const {
        Bound kept, bound = bound_of_span(view, args.min_p[index]);
        const int32_t top_k = args.top_k[index];
        if (top_k > 0 && top_k < args.vocab_size) {
            kept = top(view, top_k);
            if (kept.from >= bound.from) bound = kept;
        }
        const Philox philox(args.seeds[index], args.positions[index]);
        const double top_p = (double)args.top_p[index];
        double total = 0;
        while (true) { /* whatever comes behind a token that top-p refuses is refused too */
            const Winner winner = scan(view, bound, philox);
            if (top_p >= 1 || winner.id == view.best) return winner.id;
            if (total == 0) total = sum(view, kept);
            const Bound ahead = view.ahead_of(view.y_of(view.row.logits[winner.id]), winner.id);
            if (in_nucleus(view, ahead, kept, total, top_p)) return winner.id;
            bound = ahead;
        }
    }

    Bound top(const View &view, int32_t k) const {
        if (crew.member == 0) *space.top = bound_of_best(view, k, space.keys);
        crew.wait();
        return *space.top;
    }

    Winner scan(const View &view, const Bound &bound, const Philox &philox) const {
        Scan own(view, bound, philox);
        own.blocks(begin, end);
        space.winners[crew.member] = own.winner;
        crew.wait();
        Winner best = space.winners[0];
        for (int member = 1; member < crew.size; member++)
            if (space.winners[member].beats(best)) best = space.winners[member];
        return best;
    }

    double sum(const View &view, const Bound &bound) const {
        for (int chunk = begin / CHUNK_BLOCKS; chunk * CHUNK_BLOCKS < end; chunk++)
            space.sums[chunk] = sum_chunk(view, bound, chunk);
        crew.wait();
        double sum = 0;
        for (int chunk = 0; chunk < num_chunks; chunk++) sum += space.sums[chunk];
        crew.wait();
        return sum;
    }

    /* Whether the tokens ahead of one leave room for it in top_p of the probability of those kept. */
    bool in_nucleus(const View &view, const Bound &ahead, const Bound &kept, double total, double top_p) const {
        const double share = sum(view, ahead) / total;
        if (fabs(share - top_p) > view.tolerance) return share < top_p;
        return sum_exactly(view, ahead) / sum_exactly(view, kept) < top_p;
    }

    /* Log-softmax values, ranks and the best tokens of raw logits whose maxima this member has found its share of. */
    void score(const Row &row, int index, int32_t token) const {
        crew.wait();
        const float best_x = row.logits[find_best(row, space.maxima)], x = row.logits[token];
        const View view(row, space.maxima, space.weights, 1.0f, best_x);
        view.weigh(begin, end);
        double log_total = __builtin_nan("");
        if (is_finite(best_x)) log_total = (double)best_x + log(sum(view, Bound()));
        space.counts[crew.member] = count_above(row, space.maxima, begin, end, x);
        crew.wait();
        if (crew.member) return;
        int64_t rank = 1;
        for (int member = 0; member < crew.size; member++) rank += space.counts[member];
        args.ranks[index] = (int32_t)rank;
        args.logprobs[index] = (float)((double)x - log_total);
        const int32_t asked = args.num_logprobs[index];
        const int k = asked < 0 ? args.vocab_size : smaller(asked, args.vocab_size);
        if (k) write_best(view, index, k, log_total);
    }

    void write_best(const View &view, int index, int k, double log_total) const {
        sort_keys(space.keys, gather_best(view, k, space.keys));
        int32_t *ids = args.top_ids + index * args.num_top;
        float *logprobs = args.top_logprobs + index * args.num_top;
        for (int i = 0; i < k; i++) {
            ids[i] = id_of(space.keys[i]);
            logprobs[i] = (float)((double)view.row.logits[ids[i]] - log_total);
        }
    }
};

constexpr int64_t COUNTER_BYTES = 64; /* at the front of scratch memory: the next row that nobody has taken */

inline int64_t scratch_bytes(int32_t num_threads, int32_t vocab_size) {
    return COUNTER_BYTES + num_threads * Workspace().lay_out(0, num_threads, vocab_size);
}

} // namespace sampling

/* One thread's part of a call; all threads of the team make it, with a zero at the front of scratch memory. Rows go to
 * threads one by one, but for those that would leave half of the threads idle: these are drawn by all together. */
inline void sample_rows(const SampleArgs &args, Worker &worker) {
    using namespace sampling;
    const uintptr_t memory = (uintptr_t)args.scratch + COUNTER_BYTES;
    const int num_threads = worker.num_threads;
    Workspace own, shared;
    const int64_t bytes = shared.lay_out(memory, num_threads, args.vocab_size);
    own.lay_out(memory + (uintptr_t)(bytes * worker.thread), num_threads, args.vocab_size);
    const int rest = args.num_rows % num_threads, apart = 2 * rest > num_threads ? args.num_rows : args.num_rows - rest;
    const RowSampler alone(args, {0, 1, nullptr}, own);
    int row;
    while ((row = __atomic_fetch_add((int32_t *)args.scratch, 1, __ATOMIC_RELAXED)) < apart) alone.sample(row);
    if (apart == args.num_rows) return;
    const RowSampler together(args, {worker.thread, num_threads, &worker}, shared);
    together.wait();
    for (row = apart; row < args.num_rows; row++) together.sample(row);
}

} // namespace
} // namespace isotoken
#endif
