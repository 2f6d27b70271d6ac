/* Forms of weights, as a tile multiplies them: what becomes of a step of packed weights, and how it meets activations.
 *
 * A step gives each output 4 bytes. Forms of several words unpack them into as many steps of a simpler form, of which
 * each meets 4 bytes of activations. An unpacked panel therefore is a panel of the simpler form; it pays for more than
 * FUSED_ROWS.
 */
#ifndef ISOTOKEN_CPU_LINEAR_FORMS_H
#define ISOTOKEN_CPU_LINEAR_FORMS_H

#include "program.h"
#include "simd.h"

namespace isotoken {
namespace {
namespace linear {

template <int COUNT, class Accumulator> struct Words {
    typedef Accumulator Acc;
    enum { WORDS = COUNT };
};

/* Whether a form's sums are multiplied by a scale at the end of each group of inputs; and the steps whose sums are added
 * up before they are added to the rest of the group, 0 for all of them. */
template <bool IN_GROUPS, int STEPS = 0> struct Grouped {
    enum { GROUPED = IN_GROUPS, SUM_STEPS = STEPS };
};

struct DotF32 : Words<1, VecF> {
    ISOTOKEN_INLINE VecF dot(VecF acc, VecI a, VecI b) { return fma((VecF)a, (VecF)b, acc); }
};

struct DotBF16 : Words<1, VecF> {
    ISOTOKEN_INLINE VecF dot(VecF acc, VecI a, VecI b) { return dot_bf16(acc, a, b); }
};

/* Sums of the even and of the odd inputs apart, as AMX has them: added up after each 32 inputs. */
struct EvenOdd {
    VecF even, odd;
};

#if defined(__AMX_TILE__)
struct AmxGroupsBF16;
struct AmxGroupsI4;
struct SignedI4A8;
typedef EvenOdd PairSum;
enum { PAIR_SUM_INPUTS = 32 };
typedef AmxGroupsBF16 UnpackedPairs;
typedef AmxGroupsI4 UnpackedI4A8;
typedef SignedI4A8 PanelsI4A8;
struct Pair { /* of weights, as they meet activations */
    VecF low, high;
};
ISOTOKEN_INLINE Pair as_pair(VecF low, VecF high) { return {low, high}; }
ISOTOKEN_INLINE Pair as_pair(VecI pairs) { return {low_bf16(pairs), high_bf16(pairs)}; }
ISOTOKEN_INLINE EvenOdd dot_pairs(EvenOdd acc, VecI a, Pair b) {
    return {fma(low_bf16(a), b.low, acc.even), fma(high_bf16(a), b.high, acc.odd)};
}
#else
struct GroupsBF16;
struct GroupsU4;
struct FusedI4A8;
typedef VecF PairSum;
enum { PAIR_SUM_INPUTS = 0 };
typedef GroupsBF16 UnpackedPairs;
typedef GroupsU4 UnpackedI4A8;
typedef FusedI4A8 PanelsI4A8;
typedef VecI Pair;
ISOTOKEN_INLINE Pair as_pair(VecF low, VecF high) { return pair_bf16(low, high); }
ISOTOKEN_INLINE Pair as_pair(VecI pairs) { return pairs; }
ISOTOKEN_INLINE VecF dot_pairs(VecF acc, VecI a, Pair b) { return dot_bf16(acc, a, b); }
#endif

struct PlainF32 : DotF32, Grouped<false> {};
struct PlainBF16 : DotBF16, Grouped<false> {};
struct GroupsF32 : DotF32, Grouped<true> {};
struct GroupsBF16 : DotBF16, Grouped<true> {};

/* bfloat16 where sums have the order of AMX, for few rows. */
struct PlainPairs : Words<1, PairSum>, Grouped<false, PAIR_SUM_INPUTS / 2> {
    enum { FUSED_ROWS = 3 };
    ISOTOKEN_INLINE PairSum dot(PairSum acc, VecI a, VecI b) { return dot_pairs(acc, a, as_pair(b)); }
};

/* Activations without a sign, weights with one. */
struct PlainI8 : Words<1, VecI>, Grouped<false> {
    ISOTOKEN_INLINE VecI dot(VecI acc, VecI a, VecI b) { return dot_u8s8(acc, a, b); }
};

/* Weights of 0 to 15, activations with a sign. */
struct GroupsU4 : Words<1, VecI>, Grouped<true> {
    ISOTOKEN_INLINE VecI dot(VecI acc, VecI a, VecI b) { return dot_u8s8(acc, b, a); }
};

/* Two of them to a byte. */
struct FusedI4A8 : Words<2, VecI>, Grouped<true> {
    typedef VecI Word;
    enum { FUSED_ROWS = 8 };
    typedef UnpackedI4A8 Unpacked;
    typedef PanelsI4A8 Panels;
    ISOTOKEN_INLINE VecI dot(VecI acc, VecI a, VecI b) { return dot_u8s8(acc, b, a); }
    ISOTOKEN_INLINE void unpack(VecI packed, VecI *words) {
        words[0] = packed & 0x0f0f0f0f;
        words[1] = (VecI)((VecU)packed >> 4) & 0x0f0f0f0f;
    }
};

/* The same with a sign again, for panels that are unpacked where both may have one. */
struct SignedI4A8 : FusedI4A8 {
    ISOTOKEN_INLINE void unpack(VecI packed, VecI *words) {
        FusedI4A8::unpack(packed, words);
        for (int word = 0; word < 2; word++) words[word] = (VecI)((VecB)words[word] - 8);
    }
};

/* Weights of 8 bits for activations in bfloat16, which holds each of them exactly. */
struct FusedI8 : Words<2, PairSum>, Grouped<true, PAIR_SUM_INPUTS / 4> {
    typedef UnpackedPairs Unpacked;
    typedef FusedI8 Panels;
    typedef Pair Word;
    enum { FUSED_ROWS = 4 };
    ISOTOKEN_INLINE PairSum dot(PairSum acc, VecI a, Pair b) { return dot_pairs(acc, a, b); }
    ISOTOKEN_INLINE void unpack(VecI packed, Pair *words) {
        words[0] = as_pair(to_float(packed << 24 >> 24), to_float(packed << 16 >> 24));
        words[1] = as_pair(to_float(packed << 8 >> 24), to_float(packed >> 24));
    }
};

struct WholeI4;

/* Weights of 4 bits for activations in bfloat16: even inputs in the low 16 bits of a word, odd ones in the high. */
struct FusedI4 : Words<4, PairSum>, Grouped<true, PAIR_SUM_INPUTS / 8> {
    typedef UnpackedPairs Unpacked;
    typedef WholeI4 Panels;
    typedef Pair Word;
    enum { FUSED_ROWS = 3 };
    ISOTOKEN_INLINE PairSum dot(PairSum acc, VecI a, Pair b) { return dot_pairs(acc, a, b); }
    ISOTOKEN_INLINE void unpack(VecI packed, Pair *words) {
        ISOTOKEN_UNROLL for (int i = 0; i < 4; i++) words[i] = as_pair(pair((VecI)((VecU)packed >> (4 * i))));
    }
    /* The lowest 4 bits of each half of a lane, less 8. */
    ISOTOKEN_INLINE VecI pair(VecI fours) {
#if defined(__AVX512BW__)
        static const uint16_t BF16[32] = {/* -8 to 7, twice: a fifth bit of an index does not matter */
            0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000,
            0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040,
            0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
        return (VecI)_mm512_permutexvar_epi16((__m512i)fours, (__m512i)load_int(BF16));
#else
        return pair_bf16(to_float((fours & 15) - 8), to_float(((fours >> 16) & 15) - 8));
#endif
    }
};

/* The same for panels, where both of a pair lie in a word. */
struct WholeI4 : FusedI4 {
    typedef VecI Word;
    ISOTOKEN_INLINE void unpack(VecI packed, VecI *words) {
        ISOTOKEN_UNROLL for (int i = 0; i < 4; i++) words[i] = pair((VecI)((VecU)packed >> (4 * i)));
    }
};

/* Words as they lie in unpacked panels. */
ISOTOKEN_INLINE void store_word(char *to, VecI word) { store_int(to, word); }
#if defined(__AMX_TILE__)
ISOTOKEN_INLINE void store_word(char *to, Pair word) { store_int(to, pair_bf16(word.low, word.high)); }
ISOTOKEN_INLINE VecF low_of(Pair word) { return word.low; }
ISOTOKEN_INLINE VecF high_of(Pair word) { return word.high; }
#else
ISOTOKEN_INLINE VecF low_of(Pair word) { return low_bf16(word); }
ISOTOKEN_INLINE VecF high_of(Pair word) { return high_bf16(word); }
#endif

/* Unpack a panel of packed steps into one of Form::Unpacked. */
template <class Form> void unpack_panel(const char *packed, int32_t steps, char *unpacked) {
    for (int32_t step = 0; step < steps; step++)
        for (int v = 0; v < PANEL / LANES; v++) {
            typename Form::Word words[Form::WORDS];
            Form::unpack(load_int(packed + (step * PANEL + v * LANES) * 4), words);
            for (int word = 0; word < Form::WORDS; word++)
                store_word(unpacked + ((int64_t)(step * Form::WORDS + word) * PANEL + v * LANES) * 4, words[word]);
        }
}

/* And a panel of pairs of bfloat16 further into one of float32. */
template <class Form> void unpack_panel_f32(const char *packed, int32_t steps, char *unpacked) {
    for (int32_t step = 0; step < steps; step++)
        for (int v = 0; v < PANEL / LANES; v++) {
            typename Form::Word words[Form::WORDS];
            Form::unpack(load_int(packed + (step * PANEL + v * LANES) * 4), words);
            for (int word = 0; word < Form::WORDS; word++) {
                float *to = (float *)unpacked + (int64_t)(step * Form::WORDS + word) * 2 * PANEL + v * LANES;
                store(to, low_of(words[word]));
                store(to + PANEL, high_of(words[word]));
            }
        }
}

} // namespace linear
} // namespace
} // namespace isotoken
#endif
