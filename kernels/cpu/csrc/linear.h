/* Linear: input @ weights.T, for each form of weights and activations. */
#ifndef ISOTOKEN_CPU_LINEAR_H
#define ISOTOKEN_CPU_LINEAR_H

#include "linear_panels.h"
#if defined(__AMX_TILE__)
#include "linear_amx.h"
#endif

namespace isotoken {
namespace {
namespace linear {

/* Arithmetic without subnormal numbers while this lives, where activations are bfloat16: AMX has none of those, and
 * AVX-512 is to give the same bits. */
struct LikeAmx {
#if defined(__AMX_TILE__)
    const unsigned before = _mm_getcsr();
    explicit LikeAmx(const Linear &op) {
        if (op.input.form == FORM_BF16) _mm_setcsr(before | 0x8040); /* results flushed to zero, operands too */
    }
    ~LikeAmx() { _mm_setcsr(before); }
#else
    explicit LikeAmx(const Linear &) {}
#endif
};

template <class Form> bool run_plain(const Linear &op, Range rows, Worker &worker) {
    return run_cut<Form>(op, rows, {nullptr, 1}, worker);
}

inline bool run_bf16(const Linear &op, Range rows, Worker &worker) {
#if defined(__AMX_TILE__)
    const bool few = rows.end - rows.begin <= PlainPairs::FUSED_ROWS;
    if (few) return run_plain<PlainPairs>(op, rows, worker); /* the same bits */
    return run_plain<AmxBF16>(op, rows, worker);
#else
    return run_plain<PlainBF16>(op, rows, worker);
#endif
}

inline bool run_i8(const Linear &op, Range rows, Worker &worker) {
#if defined(__AMX_TILE__)
    if (rows.end - rows.begin > STREAM_ROWS && fits_amx(op)) return run_plain<AmxI8>(op, rows, worker);
#endif
    return run_plain<PlainI8>(op, rows, worker);
}

/* Few rows unpack as they go, more of them unpack each panel once: the same sums either way. */
template <class Form> bool run_fused(const Linear &op, Range rows, Worker &worker) {
    if (rows.end - rows.begin <= Form::FUSED_ROWS) return run_cut<Form>(op, rows, {nullptr, 1}, worker);
    return run_cut<typename Form::Unpacked>(op, rows, {unpack_panel<typename Form::Panels>, Form::WORDS}, worker);
}

/* Weights of 8 or 4 bits for activations that are not quantised. */
template <class Form> bool run_weights_alone(const Linear &op, Range rows, Worker &worker) {
    if (op.input.form == FORM_BF16) return run_fused<Form>(op, rows, worker);
    return run_cut<GroupsF32>(op, rows, {unpack_panel_f32<Form>, 2 * Form::WORDS}, worker);
}

} // namespace linear

inline bool run_linear(const Linear &op, const Step &step, Worker &worker) {
    const Range rows = row_range(op.head, step);
    if (rows.begin >= rows.end) return true;
    [[maybe_unused]] const linear::LikeAmx like_amx(op);
    switch (op.weights.form) {
    case FORM_F32:
        return linear::run_plain<linear::PlainF32>(op, rows, worker);
    case FORM_BF16:
        return linear::run_bf16(op, rows, worker);
    case FORM_I8:
        return linear::run_i8(op, rows, worker);
    case FORM_I4_A8:
        return linear::run_fused<linear::FusedI4A8>(op, rows, worker);
    case FORM_I8_GROUPS:
        return linear::run_weights_alone<linear::FusedI8>(op, rows, worker);
    default:
        return linear::run_weights_alone<linear::FusedI4>(op, rows, worker);
    }
}

} // namespace
} // namespace isotoken
#endif
