/* Weights that are summed up over all inputs within the matrix unit.
 *
 * What becomes of sums (scales, activations, rounding) is work for vectors, and takes them nearly as long as the sums
 * take the unit. So both work at once: with each chunk of inputs that the unit has, some rows of the tiles before are
 * finished.
 */
#ifndef ISOTOKEN_CPU_LINEAR_AMX_WHOLE_H
#define ISOTOKEN_CPU_LINEAR_AMX_WHOLE_H

#include "linear_amx_chunks.h"

namespace isotoken {
namespace {
namespace linear {

/* The sums of one or two tiles of rows times a panel, as they leave the unit: those of rows `next` to `end` are not
 * finished yet. */
template <class Form> struct AmxOutgoing : AmxSums {
    int32_t next = 0, end = 0;
    int32_t rows[2], second; /* the first row of each tile, and where in `bits` rows of the second are wanted from */
    VecI starts[PANEL_VECTORS];
    Finish finish;

    /* Sums of these tiles have come, of which the rows from `first` on are wanted. */
    void take(const Cut &cut, const AmxJob &job, int32_t first, int32_t height, int32_t panel, bool both) {
        const Linear &op = cut.op;
        finish = finish_of(op, panel);
        for (int v = 0; v < PANEL_VECTORS; v++)
            starts[v] = op.weights.form == FORM_I8 ? load_int(op.weights.sums + panel * PANEL + v * LANES) : VecI{};
        rows[0] = job.rows[0];
        rows[1] = job.rows[1] - AMX_ROWS;
        next = first - rows[0];
        second = first + height - rows[1]; /* of two tiles, both are AMX_ROWS high */
        end = both ? 2 * AMX_ROWS : height;
    }

    /* Finish so many more rows. */
    void finish_some(int32_t count) {
        for (; count > 0 && next < end; count--, next++) {
            if (next == AMX_ROWS) next = second;
            VecF values[PANEL_VECTORS];
            ISOTOKEN_UNROLL for (int v = 0; v < PANEL_VECTORS; v++)
                values[v] = Form::sum(load_int(bits[next] + v * LANES), starts[v]);
            finish_row(finish, rows[next >= AMX_ROWS] + next, values);
        }
    }
};

template <bool BOTH> ISOTOKEN_INLINE void begin_sums(const AmxJob &job) {
    if (!job.first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        return;
    }
    _tile_loadd(0, job.sums->bits[0], sizeof job.sums->bits[0]);
    _tile_loadd(1, job.sums->bits[0] + PANEL / 2, sizeof job.sums->bits[0]);
    if (BOTH) {
        _tile_loadd(2, job.sums->bits[AMX_ROWS], sizeof job.sums->bits[0]);
        _tile_loadd(3, job.sums->bits[AMX_ROWS] + PANEL / 2, sizeof job.sums->bits[0]);
    }
}

template <bool BOTH> ISOTOKEN_INLINE void put_sums(AmxSums &sums) {
    _tile_stored(0, sums.bits[0], sizeof sums.bits[0]);
    _tile_stored(1, sums.bits[0] + PANEL / 2, sizeof sums.bits[0]);
    if (BOTH) {
        _tile_stored(2, sums.bits[AMX_ROWS], sizeof sums.bits[0]);
        _tile_stored(3, sums.bits[AMX_ROWS] + PANEL / 2, sizeof sums.bits[0]);
    }
}

/* Sum up the chunks of a job while the tiles before are finished. */
template <class Form, bool BOTH> void run_chunks(const AmxJob &job, AmxOutgoing<Form> &outgoing) {
    const int32_t chunks = job.last - job.first, left = outgoing.end - outgoing.next;
    const int32_t a_chunk = chunks > 1 ? divide_up(left, chunks - 1) : left;
    settle_memory(&job);
    begin_sums<BOTH>(job);
    const char *weights = job.weights + (int64_t)job.first * Form::CHUNK_BYTES;
    for (int32_t chunk = job.first; chunk < job.last; chunk++) {
        fetch_ahead(job, chunk);
        _tile_loadd(6, weights, STEP_BYTES);
        _tile_loadd(4, job.activations[0] + chunk * Form::ROW_BYTES, job.row_bytes);
        _tile_loadd(7, weights + 64, STEP_BYTES);
        Form::multiply_first();
        if (BOTH) {
            _tile_loadd(5, job.activations[1] + chunk * Form::ROW_BYTES, job.row_bytes);
            Form::multiply_second();
        }
        weights += Form::CHUNK_BYTES;
        if (chunk > job.first) outgoing.finish_some(a_chunk); /* before that, sums may still be on their way */
    }
    outgoing.finish_some(left);
    settle_memory(&outgoing);
    put_sums<BOTH>(job.last < job.chunks ? *job.sums : outgoing);
    settle_memory(&outgoing);
}

/* One or two tiles of rows, of which those from `first` on are wanted. */
template <class Form, bool BOTH>
void run_amx_whole(const Cut &cut, const AmxJob &job, int32_t first, int32_t height, int32_t panel,
                   AmxOutgoing<Form> &outgoing) {
    run_chunks<Form, BOTH>(job, outgoing);
    if (job.last == job.chunks) outgoing.take(cut, job, first, height, panel, BOTH);
}

} // namespace linear
} // namespace
} // namespace isotoken
#endif
