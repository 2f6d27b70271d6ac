/* Norm and AddNorm, and what turns rows of float32 into other forms. */
#ifndef ISOTOKEN_CPU_NORM_H
#define ISOTOKEN_CPU_NORM_H

#include "operand.h"
#include "worker.h"

#include <math.h>

namespace isotoken {
namespace {

struct NormedRow {
    const float *x, *weight;
    VecF inverse;
    VecF at(int i, int count) const { return load_some(x + i, count) * inverse * load_some(weight + i, count); }
};

/* 1 / sqrt(mean(x^2) + eps): four sums side by side, added up at the end. */
inline float inverse_rms(const float *x, int size, float eps) {
    VecF squares[4] = {};
    int i = 0;
    for (; i + 4 * LANES <= size; i += 4 * LANES) {
        for (int lane = 0; lane < 4; ++lane) {
            const VecF v = load(x + i + lane * LANES);
            squares[lane] = fma(v, v, squares[lane]);
        }
    }
    for (int lane = 0; i < size; i += LANES, ++lane) {
        const VecF v = load_some(x + i, size - i);
        squares[lane] = fma(v, v, squares[lane]);
    }
    const float sum = sum_of_lanes((squares[0] + squares[1]) + (squares[2] + squares[3]));
    return 1.0f / sqrtf(sum / (float)size + eps);
}

/* This thread's share of the rows that an operation handles. */
inline Range own_rows(const Head &head, const Step &step, const Worker &worker) {
    const Range rows = row_range(head, step), share = share_of(rows.end - rows.begin, worker);
    return {rows.begin + share.begin, rows.begin + share.end};
}

inline const float *row_of(const Norm &op, const Step &step, int64_t index) {
    return op.x + (op.head.rows == ROWS_LOGITS ? step.logits_indices[index] : index) * op.ld;
}

bool run_norm(const Norm &op, const Step &step, Worker &worker) {
    const Range rows = own_rows(op.head, step, worker);
    for (int64_t index = rows.begin; index < rows.end; ++index) {
        const float *x = row_of(op, step, index);
        if (op.weight)
            write_row(op.out, index, op.size, NormedRow{x, op.weight, splat(inverse_rms(x, op.size, op.eps))});
        else
            write_row(op.out, index, op.size, PlainRow{x});
    }
    return true;
}

template <class Row> inline void add_row(float *x, int size, float factor, const Row &row) {
    for (int i = 0; i < size; i += LANES)
        store_some(x + i, load_some(x + i, size - i) + splat(factor) * row.at(i, size - i), size - i);
}

bool run_add_norm(const AddNorm &op, const Step &step, Worker &worker) {
    const Range rows = own_rows(op.head, step, worker);
    for (int64_t index = rows.begin; index < rows.end; ++index) {
        float *x = op.x + index * op.ld_x;
        const float *y = op.y + index * op.ld_y;
        if (op.weight)
            add_row(x, op.size, op.factor, NormedRow{y, op.weight, splat(inverse_rms(y, op.size, op.eps))});
        else
            add_row(x, op.size, op.factor, PlainRow{y});
    }
    return true;
}

} // namespace
} // namespace isotoken

#endif
