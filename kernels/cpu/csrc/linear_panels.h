/* A linear layer cut into tiles: which rows and panels a thread takes, and in what order.
 *
 * Rows are cut into blocks whose activations stay in the second cache, and a block's panels run one after another, each
 * through all tiles of the block, while the next panel is fetched.
 */
#ifndef ISOTOKEN_CPU_LINEAR_PANELS_H
#define ISOTOKEN_CPU_LINEAR_PANELS_H

#include "linear_epilogue.h"
#include "linear_tile.h"
#include "worker.h"

namespace isotoken {
namespace {
namespace linear {

enum { BLOCK_BYTES = 384 << 10, BLOCK_ROWS = 64, NARROW_VECTORS = 2, MOST_SUMS = MOST_ROWS * PANEL };

inline int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

inline int32_t inputs_a_step(int32_t form) {
    switch (form) {
    case FORM_F32:
        return 1;
    case FORM_BF16:
        return 2;
    case FORM_I8:
    case FORM_I8_GROUPS:
        return 4;
    default:
        return 8;
    }
}

inline int32_t bytes_an_input(int32_t form) { return form == FORM_F32 ? 4 : form == FORM_BF16 ? 2 : 1; }

inline bool in_groups(int32_t form) { return form == FORM_I4_A8 || form == FORM_I8_GROUPS || form == FORM_I4_GROUPS; }

/* How packed weights become those that tiles take: `words` steps of each. */
struct Unpacking {
    void (*panel)(const char *packed, int32_t steps, char *unpacked); /* nullptr: they are */
    int32_t words;
};

/* A linear layer and how it is cut. */
struct Cut {
    const Linear &op;
    Range rows;
    Unpacking unpacking;
    char *unpacked;
    int32_t panels, steps, groups, rows_a_block, blocks;
    int32_t inputs; /* filled up */
    int64_t panel_bytes; /* as packed */

    const char *packed(int32_t panel) const { return (const char *)op.weights.values + panel * panel_bytes; }
};

inline Cut cut(const Linear &op, Range rows, Unpacking unpacking) {
    const int32_t inputs = divide_up(op.weights.inputs, 32) * 32;
    const int32_t count = rows.end - rows.begin;
    const int32_t fitting = BLOCK_BYTES / (inputs * bytes_an_input(op.input.form));
    const int32_t most = fitting > BLOCK_ROWS ? fitting : BLOCK_ROWS;
    const int32_t blocks = divide_up(count, most);
    const int32_t steps = inputs / inputs_a_step(op.weights.form);
    const int32_t groups = in_groups(op.weights.form) ? divide_up(inputs, op.weights.group) : 0;
    const int32_t panels = divide_up(op.weights.outputs, PANEL), rows_a_block = divide_up(count, blocks);
    return {op,     rows,   unpacking,    nullptr, panels, steps,
            groups, rows_a_block, blocks, inputs,  (int64_t)steps * STEP_BYTES};
}

/* A tile of the first column of a panel, from this row on. */
inline Tile tile_at(const Cut &cut, int32_t row, int32_t panel) {
    const Linear &op = cut.op;
    Tile tile = {};
    tile.row_bytes = (int64_t)op.input.ld * bytes_an_input(op.input.form);
    tile.activations = (const char *)op.input.values + row * tile.row_bytes;
    tile.weights = cut.unpacked ? cut.unpacked : cut.packed(panel);
    tile.panel_bytes = cut.panel_bytes;
    tile.steps = cut.steps * cut.unpacking.words;
    if (op.weights.form == FORM_I8) tile.start = op.weights.sums + panel * PANEL;
    tile.steps_a_group = tile.steps;
    if (!cut.groups) return tile;
    tile.steps_a_group = op.weights.group / inputs_a_step(op.weights.form) * cut.unpacking.words;
    tile.panel_scales = (int64_t)cut.groups * PANEL;
    tile.scales = (const uint16_t *)op.weights.scales + panel * tile.panel_scales;
    if (op.weights.form == FORM_I4_A8) tile.sums = op.input.sums + (int64_t)row * cut.groups;
    tile.ld_sums = cut.groups;
    return tile;
}

/* Run a tile of as many rows, with as many vectors as suit them or just two. */
template <class Form, int ROWS = most_rows<Form>()> void run_rows(int rows, bool wide, const Tile &tile) {
    if constexpr (ROWS > 0) {
        if (rows < ROWS)
            run_rows<Form, ROWS - 1>(rows, wide, tile);
        else if (wide)
            run_tile<Form, ROWS, wide_vectors<Form>(ROWS)>(tile);
        else
            run_tile<Form, ROWS, NARROW_VECTORS>(tile);
    }
}

/* Some rows times a panel, or several at once where `available` and worth it; returns how many. */
template <class Form>
int32_t run_panels(const Cut &cut, Tile tile, int32_t row, int32_t rows, int32_t panel, int32_t available) {
    alignas(64) float sums[MOST_SUMS];
    int32_t vectors = wide_vectors<Form>(rows);
    const bool wide = vectors <= VECTORS_A_PANEL * available;
    if (!wide) vectors = NARROW_VECTORS;
    const int32_t panels = vectors > VECTORS_A_PANEL ? vectors / VECTORS_A_PANEL : 1;
    tile.ld_out = panels * PANEL;
    tile.out = sums;
    for (int32_t v = 0; v < panels * VECTORS_A_PANEL; v += vectors) {
        run_rows<Form>(rows, wide, tile);
        tile.weights += vectors * VECTOR_BYTES;
        tile.out += vectors * LANES;
        if (tile.start) tile.start += vectors * LANES;
        if (tile.scales) tile.scales += vectors * LANES;
        tile.ahead_stride = 0;
    }
    for (int32_t p = 0; p < panels; p++)
        finish_rows(finish_of(cut.op, panel + p), row, rows, sums + p * PANEL, tile.ld_out);
    return panels;
}

/* A block of rows times some panels. */
template <class Form> void run_block(const Cut &cut, Range rows, Range panels) {
    const int32_t count = rows.end - rows.begin, tiles = divide_up(count, most_rows<Form>());
    const int32_t parts = tiles < 2 ? 1 : 2; /* of the next panel, which the first tiles fetch */
    for (int32_t panel = panels.begin; panel < panels.end;) {
        if (cut.unpacked) cut.unpacking.panel(cut.packed(panel), cut.steps, cut.unpacked);
        const char *next = cut.packed(panel + 1 < panels.end ? panel + 1 : panel);
        int32_t done = 1;
        for (int32_t i = 0, row = rows.begin; i < tiles; i++) {
            const int32_t now = divide_up(rows.end - row, tiles - i);
            Tile tile = tile_at(cut, row, panel);
            tile.ahead = next + (i < parts ? cut.panel_bytes / parts * i : 0);
            tile.ahead_stride = i < parts ? STEP_BYTES / (cut.unpacking.words * parts) : 0;
            done = run_panels<Form>(cut, tile, row, now, panel, tiles == 1 && !cut.unpacked ? panels.end - panel : 1);
            row += now;
        }
        panel += done;
    }
}

/* This thread's share. Units are panels of blocks, dealt out in runs. */
template <class Form> bool run_cut(const Linear &op, Range rows, Unpacking unpacking, Worker &worker) {
    Cut whole = cut(op, rows, unpacking);
    if (unpacking.panel) {
        whole.unpacked = (char *)worker.scratch((size_t)(whole.panel_bytes * unpacking.words + STREAM_AHEAD));
        if (!whole.unpacked) return false;
    }
    const Range units = share_of(whole.blocks * whole.panels, worker);
    for (int32_t unit = units.begin; unit < units.end;) {
        const int32_t block = unit / whole.panels, first = unit % whole.panels;
        const int32_t left = units.end - unit, here = whole.panels - first < left ? whole.panels - first : left;
        const int32_t begin = rows.begin + block * whole.rows_a_block;
        const int32_t end = begin + whole.rows_a_block < rows.end ? begin + whole.rows_a_block : rows.end;
        if (begin < end) run_block<Form>(whole, {begin, end}, {first, first + here});
        unit += here;
    }
    return true;
}

} // namespace linear
} // namespace
} // namespace isotoken
#endif
