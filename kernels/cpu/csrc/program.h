/* The C interface of the CPU kernels: a program of operations that a team of threads runs once a step.
 *
 * A program is made once, when a model is loaded: an array of pointers to the structs below, each beginning with a Head.
 * What differs from step to step is in Step alone, so no operation is ever rebuilt or patched. kernels/cpu/program.py
 * mirrors every struct; kernels/cpu/twins/ is the same arithmetic in numpy, and the oracle of the tests.
 *
 * Sizes: N requests, T query tokens, B blocks a request, L logits rows, H hidden, D head_dim, V vocabulary.
 * Every sum has an order that depends on its own row alone: not on other rows, on how rows are cut into tiles, nor on
 * the number of threads.
 *
 * Matrices of activations are rows of `ld` elements. Whoever writes one that a Linear reads fills its rows with zeros
 * from their size up to the next multiple of 32 elements; `ld` is at least that. Pointers to activations are aligned to
 * 64 bytes; `ld` need not be a multiple of 16.
 */
#ifndef ISOTOKEN_CPU_PROGRAM_H
#define ISOTOKEN_CPU_PROGRAM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PANEL = 32 }; /* outputs of a weight matrix that lie together */
enum { TOKENS_A_BLOCK = 16 }; /* block_size is a multiple of it */

/* How numbers lie in memory. */
enum Form {
    FORM_F32 = 0,
    FORM_BF16 = 1,
    FORM_F16 = 2,        /* of embedding tables and scales alone */
    FORM_I8 = 3,         /* int8 with a float32 scale a row: of activations uint8, q + 128; of K/V a scale a token, head */
    FORM_I8_SUMMED = 4,  /* activations for FORM_I4_A8: int8, a scale a row, and for each group -8 times its sum */
    FORM_I4_A8 = 5,      /* weights of 4 bits in groups, for activations FORM_I8_SUMMED */
    FORM_I8_GROUPS = 6,  /* weights of 8 bits in groups, for activations in float32 or bfloat16 */
    FORM_I4_GROUPS = 7   /* weights of 4 bits in groups, for activations in float32 or bfloat16 */
};

/* Which rows an operation handles. */
enum Rows {
    ROWS_TOKENS = 0, /* all T */
    ROWS_LOGITS = 1, /* L rows; a Norm reads row logits_indices[l] of its input, everything after it reads row l */
    ROWS_EXPERT = 2, /* those that Head.routing gave to Head.expert, as Gather laid them side by side */
    ROWS_ROUTED = 3, /* all of them */
    ROWS_CHOSEN = 4  /* L rows; every operation reads and writes row l, a Norm too */
};

enum Kind {
    OP_EMBED = 0,
    OP_NORM = 1,
    OP_ADD_NORM = 2,
    OP_LINEAR = 3,
    OP_HEADS = 4,
    OP_ATTENTION = 5,
    OP_ROUTE = 6,
    OP_GATHER = 7,
    OP_COMBINE = 8
};

enum { MAX_HEAD_DIM = 1024 }; /* of Heads and Attention */

/* What calls return. */
enum Status {
    STATUS_DONE = 0,
    STATUS_NO_MEMORY = -1,  /* scratch memory ran out */
    STATUS_UNKNOWN = -2,    /* an operation, a form, or a head_dim that the kernels do not have */
    STATUS_NO_THREADS = -3  /* in a fork, a team's threads cannot be started; errno is set */
};

enum Activation { ACT_SILU = 0, ACT_GELU = 1, ACT_GELU_TANH = 2, ACT_RELU = 3 };

/* A step: the arrays of core.batch.Batch. */
typedef struct {
    int32_t num_tokens, num_requests, num_logits, table_width; /* T, N, L, B */
    const int32_t *input_ids;       /* [T] */
    const int32_t *positions;       /* [T] */
    const int32_t *slot_mapping;    /* [T] */
    const int32_t *query_start_loc; /* [N + 1] */
    const int32_t *seq_lens;        /* [N] */
    const int32_t *block_table;     /* [N, B] */
    const int32_t *logits_indices;  /* [L] */
} Step;

/* Which token goes to which expert; written by Route. Places are rows of the gathered activations, sorted by expert. */
typedef struct {
    int32_t num_experts, top_k;
    int32_t *experts; /* [T, top_k] rising: sums go in order of the expert */
    float *shares;    /* [T, top_k] */
    int32_t *starts;  /* [num_experts + 1] places of each expert */
    int32_t *tokens;  /* [T * top_k] the token at each place */
    int32_t *places;  /* [T, top_k] the place of each */
} Routing;

typedef struct {
    int32_t kind, rows, expert, reserved;
    const Routing *routing; /* where rows say so */
} Head;

/* Activations as a Linear reads them. */
typedef struct {
    void *values;
    float *scales; /* [rows]: FORM_I8 and FORM_I8_SUMMED */
    int32_t *sums; /* [rows, groups of the size filled up to a multiple of 32]: FORM_I8_SUMMED */
    int32_t form, ld, group, reserved;
} Operand;

/* A weight matrix [outputs, inputs], packed by isotoken_pack; outputs and inputs count what the model has, and what lies
 * in memory is filled up with zeros to whole panels and to a multiple of 32 inputs. A panel holds PANEL outputs and is
 * a row of steps; in a step each output has 4 bytes, side by side: values [panels][steps][PANEL][4 bytes], with
 * FORM_F32                one input a step
 * FORM_BF16               two
 * FORM_I8, FORM_I8_GROUPS four, signed
 * FORM_I4_A8              eight, as q + 8: inputs 0 to 3 in the low halves of the bytes, 4 to 7 in the high halves
 * FORM_I4_GROUPS          eight, as q + 8: the even inputs in the low 16 bits from the lowest up, the odd in the high
 * Groups are runs of `group` inputs, a multiple of 32; the last may be shorter.
 * Gated: gate and up interleaved, 16 outputs of the one beside 16 of the other, so `outputs` counts both, and the last
 * 16 of each are filled up with zeros. */
typedef struct {
    const void *values;
    const void *scales;  /* FORM_I8: float [panels * PANEL]; groups: float16 [panels][groups][PANEL] */
    const int32_t *sums; /* FORM_I8: [panels * PANEL] -128 times the sum of each output's weights */
    int32_t form, outputs, inputs, group;
} Weights;

/* x = scale * table[input_ids], float32. */
typedef struct {
    Head head;
    const void *table; /* [V, size] */
    float *x;
    int32_t form, size, ld;
    float scale;
} Embed;

/* out = norm(x) * weight in the form of `out`; without `weight` out = x. norm(x) = x / sqrt(mean(x^2) + eps). */
typedef struct {
    Head head;
    const float *x, *weight; /* [size] or NULL */
    Operand out;
    int32_t size, ld;
    float eps;
    int32_t reserved;
} Norm;

/* x += factor * norm(y) * weight, or factor * y without `weight`. */
typedef struct {
    Head head;
    float *x;
    const float *y, *weight;
    int32_t size, ld_x, ld_y;
    float eps, factor;
    int32_t reserved;
} AddNorm;

enum Epilogue {
    EPI_STORE = 0, /* out = cap(factor * (input @ weights.T + bias)) */
    EPI_ADD = 1,   /* out += factor * (input @ weights.T + bias), float32 */
    EPI_GATE = 2   /* out = activation(gate + bias) * (up + bias), half as many, zeros up to a multiple of 32 */
};

typedef struct {
    Head head;
    Operand input;
    Weights weights;
    const float *bias; /* [panels * PANEL] in the packed order, or NULL */
    void *out;
    int32_t out_form; /* FORM_F32 or FORM_BF16 */
    int32_t ld_out;
    int32_t num_outputs; /* that are stored: the last panel's rest is not; of EPI_GATE half of it */
    int32_t epilogue, activation;
    float factor, cap; /* cap: 0 is off, else cap * tanh(value / cap) */
    int32_t reserved;
} Linear;

/* One layer's K/V memory: blocks of block_size tokens, each cut into pieces of TOKENS_A_BLOCK tokens. A piece of one
 * K/V head lies together, pieces of a block as [block_size / 16][kv_heads]. Within a piece, with 16 tokens:
 * keys   FORM_F32 [D][16], FORM_BF16 [D/2][16][2], FORM_I8 [D/4][16][4];
 * values FORM_F32 [16][D], FORM_BF16 [8][D][2],    FORM_I8 [16][D].
 * D is filled up with zeros to a multiple of 16. Memory begins as zeros; what a tail holds is never trusted to be
 * finite. */
typedef struct {
    void *keys, *values;
    float *key_scales, *value_scales; /* FORM_I8: [blocks, block_size / 16, kv_heads, 16] */
    int32_t form, block_size, num_kv_heads, head_dim;
} Cache;

/* Split projections into heads: norm queries and keys where asked, rotate them, scale the queries, and write keys and
 * values to their slots. */
typedef struct {
    Head head;
    const float *qkv; /* [T, ld]: queries, keys, values side by side */
    void *queries;    /* [T, ld_queries], FORM_F32, or FORM_BF16 where the cache is not FORM_F32; each head D wide */
    const float *q_norm, *k_norm; /* [D] for each head, [heads * D] for all; NULL: no norm */
    const float *rotations; /* [positions, rotary_dim]: cosines, then sines; NULL: no position embedding */
    Cache cache;
    int32_t ld, ld_queries, num_heads, norm_all; /* norm_all: the norm is over the whole projection */
    int32_t rotary_dim;
    float eps, query_scale;
    int32_t reserved;
} Heads;

/* Causal attention of each token over its request's context. */
typedef struct {
    Head head;
    const void *queries; /* as Heads wrote them */
    Operand out;         /* FORM_F32 or FORM_BF16, [T, num_heads * D] */
    Cache cache;
    int32_t ld_queries, num_heads;
    int32_t window; /* positions that a query sees, its own included; 0: all */
    float cap;      /* of scores; 0 is off */
} Attention;

/* Take the top_k most probable experts of each token by softmax over all (ties: lowest index) and sort the tokens. */
typedef struct {
    Head head;
    const float *logits; /* [T, ld] */
    Routing *routing;
    int32_t ld, normalize;
} Route;

/* out row [place] = input row [token of place], scales and sums included. */
typedef struct {
    Head head;
    Operand input, out;
    int32_t size, reserved;
} Gather;

/* out = sum over each token's experts, in their order, of share * y[place]. */
typedef struct {
    Head head;
    const float *y; /* [T * top_k, ld_y] */
    float *out;
    int32_t size, ld_y, ld_out, reserved;
} Combine;

typedef struct Team Team;

/* Start num_threads - 1 threads beside the caller, which run instruction set `isa` of those below. They spin for spin_us
 * after their last work, then sleep. cpus: one for each thread to be pinned to, or NULL. The caller is pinned until the
 * last of its teams is destroyed by it. Returns NULL, errno set, where threads cannot be started; EINVAL where the
 * instruction set does not run. */
Team *isotoken_team_start(int32_t isa, int32_t num_threads, const int32_t *cpus, int32_t spin_us);
void isotoken_team_destroy(Team *team);

/* Run a program. The results are bitwise the same for any number of threads. Returns a Status. */
int32_t isotoken_run(Team *team, const Head *const *program, int32_t num_ops, const Step *step);

/* Seconds each operation took since the last call, where profiling is on: [num_ops]; sums over steps. */
void isotoken_profile(Team *team, int32_t on, double *seconds, int32_t num_ops);

/* Pack rows of a matrix [rows, inputs] of form F32, BF16 or F16, rows ld elements apart: row order[n] as output n (order
 * NULL: row n), -1 being zeros. `packed` says form, sizes and group, and its memory is written. The rounding is that of
 * kernels/cpu/quantize.py. Returns a Status. */
int32_t isotoken_pack(Team *team, const void *matrix, int32_t matrix_form, int64_t ld, const int32_t *order,
                      const Weights *packed);

/* The same for integers that were quantised elsewhere: values [rows, inputs] with 0 for 0, ld apart, and scales float32
 * [rows] for FORM_I8, [rows, groups] otherwise. */
int32_t isotoken_pack_quantised(Team *team, const int8_t *values, int64_t ld, const float *scales,
                                const int32_t *order, const Weights *packed);

/* Instruction sets this library was built with, best first, and which of them this machine runs. */
int32_t isotoken_num_isas(void);
const char *isotoken_isa_name(int32_t index);
int32_t isotoken_isa_runs(int32_t index);

/* sizeof of the struct of a kind, of Step (100), Cache, Operand, Weights, Routing (101 to 104): the mirror checks. */
int32_t isotoken_sizeof(int32_t kind);

#ifdef __cplusplus
}
#endif
#endif
