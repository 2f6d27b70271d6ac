/* Attention over the paged K/V cache, causal, perhaps windowed, perhaps capped. */
#ifndef ISOTOKEN_CPU_ATTENTION_H
#define ISOTOKEN_CPU_ATTENTION_H

#include "attention_amx.h"
#include "attention_softmax.h"
#include "attention_work.h"

namespace isotoken {
namespace {

/* Find the pieces of the chunk around position `begin` that a tile looks at, which sees positions up to `end`. */
inline void find_chunk(const Attention &op, const Step &step, const Tile &tile, int begin, int end, Chunk &chunk) {
    const Cache &cache = op.cache;
    const int32_t *table = step.block_table + (int64_t)tile.request * step.table_width;
    const int chunk_end = (begin / CHUNK + 1) * CHUNK;
    const int64_t bytes = piece_bytes(cache);
    const bool scaled = cache.form == FORM_I8;
    chunk.begin = begin / TOKENS_A_BLOCK * TOKENS_A_BLOCK;
    chunk.num_pieces = 0;
    if (end > chunk_end)
        end = chunk_end;
    int block = chunk.begin / cache.block_size, offset = chunk.begin % cache.block_size;
    for (int place = chunk.begin; place < end; place += TOKENS_A_BLOCK) {
        const int64_t piece = piece_index(cache, table[block], offset, tile.kv_head);
        chunk.keys[chunk.num_pieces] = (const char *)cache.keys + piece * bytes;
        chunk.values[chunk.num_pieces] = (const char *)cache.values + piece * bytes;
        if (scaled) {
            chunk.key_scales[chunk.num_pieces] = cache.key_scales + piece * TOKENS_A_BLOCK;
            chunk.value_scales[chunk.num_pieces] = cache.value_scales + piece * TOKENS_A_BLOCK;
        }
        chunk.num_pieces++;
        offset += TOKENS_A_BLOCK;
        if (offset == cache.block_size)
            offset = 0, block++;
    }
}

/* The values of the last piece with zeros for tokens that are not there: whatever lies in their places, no matter what
 * weight it gets, may be infinite. (int8 values are finite.) */
inline const char *finite_values(TileScratch &scratch, const Cache &cache, const char *values, int num_tokens) {
    const int dim = padded_dim(cache);
    if (cache.form == FORM_F32) {
        memcpy(scratch.last_values, values, (size_t)num_tokens * dim * 4);
        memset(scratch.last_values + num_tokens * dim * 4, 0, (size_t)(TOKENS_A_BLOCK - num_tokens) * dim * 4);
        return scratch.last_values;
    }
    const int whole_pairs = num_tokens / 2;
    char *to = scratch.last_values + whole_pairs * dim * 4;
    memcpy(scratch.last_values, values, (size_t)whole_pairs * dim * 4);
    memset(to, 0, (size_t)(TOKENS_A_BLOCK / 2 - whole_pairs) * dim * 4);
    if (num_tokens % 2)
        for (int i = 0; i < dim; i += LANES)
            store_int(to + i * 4, load_int(values + (whole_pairs * dim + i) * 4) & 0xffff);
    return scratch.last_values;
}

/* Make the words of a row's query, and begin its sums. */
template <class Form>
inline void begin_row(const Attention &op, const Step &step, const Tile &tile, int row, TileScratch &scratch) {
    const int dim = op.cache.head_dim, padded = padded_dim(op.cache), token = token_of(op, step, tile, row);
    const int64_t place = (int64_t)token * op.ld_queries + (int64_t)head_of(op, tile, row) * dim;
    const Range seen = seen_by(op, step, token);
    RowState &state = scratch.rows[row];
    state.begin = seen.begin;
    state.end = seen.end;
    state.largest = UNSEEN;
    state.query_sum = 0;
    store(state.sums, VecF{});
    memset(scratch.outputs[row], 0, padded * sizeof(float));
    void *words = scratch.queries[row];
    if (op.cache.form == FORM_F32) {
        memset(words, 0, padded * sizeof(float));
        memcpy(words, (const float *)op.queries + place, dim * sizeof(float));
        return;
    }
    alignas(64) uint16_t query[MAX_HEAD_DIM];
    uint16_t *to = op.cache.form == FORM_BF16 ? (uint16_t *)words : query;
    memset(to + padded - TOKENS_A_BLOCK, 0, TOKENS_A_BLOCK * sizeof(uint16_t));
    memcpy(to, (const uint16_t *)op.queries + place, dim * sizeof(uint16_t));
    if (op.cache.form == FORM_I8) {
        alignas(64) float wide[MAX_HEAD_DIM];
        for (int i = 0; i < padded; i += LANES)
            store(wide + i, load_bf16(query + i));
        state.query_scale = quantise_row(PlainRow{wide}, padded, (int8_t *)words);
        for (int i = 0; i < padded; i++)
            state.query_sum += ((const int8_t *)words)[i];
    }
}

/* Divide a row's outputs by its sum and store them in their head's place. */
inline void end_row(const Attention &op, const Step &step, const Tile &tile, int row, TileScratch &scratch) {
    const int dim = op.cache.head_dim, head = head_of(op, tile, row);
    const int64_t line = (int64_t)token_of(op, step, tile, row) * op.out.ld, place = line + (int64_t)head * dim;
    const VecF inverse = splat(1.0f / sum_of_lanes(load(scratch.rows[row].sums)));
    float *outputs = scratch.outputs[row];
    for (int i = 0; i < dim; i += LANES)
        store(outputs + i, load(outputs + i) * inverse);
    const int size = op.num_heads * dim, rest = head == op.num_heads - 1 ? filled_up(size) - size : 0;
    if (op.out.form == FORM_F32) {
        memcpy((float *)op.out.values + place, outputs, dim * sizeof(float));
        memset((float *)op.out.values + line + size, 0, rest * sizeof(float));
        return;
    }
    alignas(64) uint16_t rounded[MAX_HEAD_DIM];
    for (int i = 0; i < dim; i += LANES)
        store_bf16(rounded + i, load(outputs + i));
    memcpy((uint16_t *)op.out.values + place, rounded, dim * sizeof(uint16_t));
    memset((uint16_t *)op.out.values + line + size, 0, rest * sizeof(uint16_t));
}

/* Do a tile whose first chunk is found already, and find that of the tile after it, which is fetched meanwhile. */
template <class Form>
void run_tile(const Attention &op, const Step &step, const Tile &tile, const Tile *after, TileScratch &scratch) {
    const int dim = padded_dim(op.cache), end = seen_by_tile(op, step, tile).end, seq_len = step.seq_lens[tile.request];
    TileKernels<Form>::begin(scratch, tile.rows);
    for (int row = 0; row < tile.rows; row++)
        begin_row<Form>(op, step, tile, row, scratch);
    for (bool more = true; more;) {
        Chunk &chunk = scratch.chunks[scratch.at_hand], &next = scratch.chunks[1 - scratch.at_hand];
        const int chunk_end = chunk.begin + chunk.num_pieces * TOKENS_A_BLOCK;
        more = chunk_end < end;
        next.num_pieces = 0;
        if (more)
            find_chunk(op, step, tile, chunk_end, end, next);
        else if (after) {
            const Range seen = seen_by_tile(op, step, *after);
            find_chunk(op, step, *after, seen.begin, seen.end, next);
        }
        const bool near = !more && after && after->request == tile.request && after->kv_head == tile.kv_head;
        const Chunk &fetched = near ? NO_CHUNK : next; /* what the next tile shares with this one is at hand */
        if (chunk_end > seq_len && !Form::HAS_SCALES) {
            const char *&last = chunk.values[chunk.num_pieces - 1];
            last = finite_values(scratch, op.cache, last, seq_len % TOKENS_A_BLOCK);
        }
        TileKernels<Form>::score(tile.rows, scratch, chunk, fetched, dim);
        for (int row = 0; row < tile.rows; row++)
            soften_row<Form>(scratch, chunk, row, op.cap, dim);
        TileKernels<Form>::weigh(tile.rows, scratch, chunk, fetched, dim);
        scratch.at_hand = 1 - scratch.at_hand;
    }
    for (int row = 0; row < tile.rows; row++)
        end_row(op, step, tile, row, scratch);
}

template <class Form> bool run_tiles(const Attention &op, const Step &step, Worker &worker) {
    TileScratch *scratch = (TileScratch *)worker.scratch(sizeof(TileScratch));
    if (!scratch)
        return false;
    TileWalk walk(op, step, TileKernels<Form>::ROWS, worker);
    Tile tile, after;
    bool more = walk.next(tile);
    if (more) {
        const Range seen = seen_by_tile(op, step, tile);
        scratch->at_hand = scratch->matrix_rows = 0;
        find_chunk(op, step, tile, seen.begin, seen.end, scratch->chunks[0]);
    }
    while (more) {
        more = walk.next(after);
        run_tile<Form>(op, step, tile, more ? &after : nullptr, *scratch);
        tile = after;
    }
    TileKernels<Form>::end();
    return true;
}

bool run_attention(const Attention &op, const Step &step, Worker &worker) {
    if (op.cache.head_dim > MAX_HEAD_DIM)
        return false;
    switch (op.cache.form) {
    case FORM_F32: return run_tiles<FloatCache>(op, step, worker);
    case FORM_BF16: return run_tiles<Bf16Cache>(op, step, worker);
    default: return run_tiles<Int8Cache>(op, step, worker);
    }
}

} // namespace
} // namespace isotoken

#endif
