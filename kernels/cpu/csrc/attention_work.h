/* How a step's attention is cut into tiles, and which thread does which. */
#ifndef ISOTOKEN_CPU_ATTENTION_WORK_H
#define ISOTOKEN_CPU_ATTENTION_WORK_H

#include "attention_tile.h"
#include "worker.h"

namespace isotoken {
namespace {

/* Rows first ... first + rows - 1 of a request and a K/V head. The rows of these are its queries of this step, and for
 * each query the heads that share the K/V head. */
struct Tile {
    int request, kv_head, first, rows;
};

inline int group_size(const Attention &op) { return op.num_heads / op.cache.num_kv_heads; }

inline int rows_of(const Attention &op, const Step &step, int request) {
    return (step.query_start_loc[request + 1] - step.query_start_loc[request]) * group_size(op);
}

/* The token that a row of a tile is a query of. */
inline int token_of(const Attention &op, const Step &step, const Tile &tile, int row) {
    return step.query_start_loc[tile.request] + (tile.first + row) / group_size(op);
}

inline int head_of(const Attention &op, const Tile &tile, int row) {
    return tile.kv_head * group_size(op) + (tile.first + row) % group_size(op);
}

/* The positions that a token sees. */
inline Range seen_by(const Attention &op, const Step &step, int token) {
    const int end = step.positions[token] + 1;
    return {op.window > 0 && end > op.window ? end - op.window : 0, end};
}

/* The positions that any row of a tile sees: queries come in rising order of position. */
inline Range seen_by_tile(const Attention &op, const Step &step, const Tile &tile) {
    return {seen_by(op, step, token_of(op, step, tile, 0)).begin,
            seen_by(op, step, token_of(op, step, tile, tile.rows - 1)).end};
}

/* Go to the tile after `tile`, of tile_rows rows at most, or to the first from {}. False where there is none. */
inline bool advance(const Attention &op, const Step &step, int tile_rows, Tile &tile) {
    tile.first += tile.rows;
    while (tile.request < step.num_requests) {
        const int num_rows = rows_of(op, step, tile.request);
        if (tile.first < num_rows) {
            tile.rows = num_rows - tile.first < tile_rows ? num_rows - tile.first : tile_rows;
            return true;
        }
        tile.first = tile.rows = 0;
        if (++tile.kv_head == op.cache.num_kv_heads || num_rows == 0) {
            tile.kv_head = 0;
            tile.request++;
        }
    }
    return false;
}

/* About how long a tile takes: for each position the loads and, of each row, the arithmetic. */
inline int64_t cost_of(const Attention &op, const Step &step, const Tile &tile) {
    const Range seen = seen_by_tile(op, step, tile);
    return (int64_t)(seen.end - seen.begin + 64) * (tile.rows + 2);
}

/* The tiles that one thread does: a run of them, of as much work as every other thread's. */
class TileWalk {
  public:
    TileWalk(const Attention &op, const Step &step, int tile_rows, const Worker &worker)
        : op_(op), step_(step), tile_rows_(tile_rows) {
        int64_t total = 0;
        for (Tile tile = {}; advance(op, step, tile_rows, tile);)
            total += cost_of(op, step, tile);
        begin_ = total * worker.thread / worker.num_threads;
        end_ = total * (worker.thread + 1) / worker.num_threads;
    }

    /* The next tile of this thread's. False where there is none. */
    bool next(Tile &tile) {
        while (advance(op_, step_, tile_rows_, here_)) {
            const int64_t start = done_;
            done_ += cost_of(op_, step_, here_);
            if (start >= end_)
                return false;
            if (start >= begin_) {
                tile = here_;
                return true;
            }
        }
        return false;
    }

  private:
    const Attention &op_;
    const Step &step_;
    const int tile_rows_;
    Tile here_ = {};
    int64_t begin_, end_, done_ = 0;
};

} // namespace
} // namespace isotoken

#endif
