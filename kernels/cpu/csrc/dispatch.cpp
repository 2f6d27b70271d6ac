/* The C interface: instruction sets, teams, and a program's run through its operations. */
#include "dispatch.h"
#include "kernels.h"
#include "team.h"

#include <atomic>
#include <chrono>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define ISOTOKEN_EXPORT extern "C" __attribute__((visibility("default")))

namespace isotoken {

/* Those that setup.py compiled: ISOTOKEN_WITH_... says which. */
extern const Kernels KERNELS_amx, KERNELS_avx512_bf16, KERNELS_avx512, KERNELS_avx2, KERNELS_plain;

namespace {

struct Isa {
    const Kernels *kernels;
    bool (*runs)();
};

bool always() { return true; }

#if defined(__x86_64__)
[[maybe_unused]] bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
[[maybe_unused]] bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
[[maybe_unused]] bool has_avx512_bf16() {
    return has_avx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
}

/* Linux gives the matrix unit's state to processes that ask for it. */
[[maybe_unused]] bool has_amx() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    const int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return has_avx512_bf16() && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
           __builtin_cpu_supports("amx-int8") && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

const Isa ISAS[] = { /* best first */
#if defined(ISOTOKEN_WITH_amx)
    {&KERNELS_amx, has_amx},
#endif
#if defined(ISOTOKEN_WITH_avx512_bf16)
    {&KERNELS_avx512_bf16, has_avx512_bf16},
#endif
#if defined(ISOTOKEN_WITH_avx512)
    {&KERNELS_avx512, has_avx512},
#endif
#if defined(ISOTOKEN_WITH_avx2)
    {&KERNELS_avx2, has_avx2},
#endif
    {&KERNELS_plain, always},
};
const int32_t NUM_ISAS = sizeof ISAS / sizeof *ISAS;

struct Run {
    const Head *const *program;
    int32_t num_ops;
    const Step *step;
    std::atomic<bool> failed{false};
};

double now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

void run_program(void *argument, Worker &worker) {
    Run &run = *(Run *)argument;
    const bool profiling = worker.thread == 0 && worker.team->profiling;
    double begin = profiling ? now() : 0;
    for (int32_t i = 0; i < run.num_ops; i++) {
        if (i) worker.barrier();
        const Head *operation = run.program[i];
        if (!worker.team->kernels.run[operation->kind](operation, *run.step, worker)) run.failed = true;
        if (profiling) { /* what other threads still have to do counts for the next one */
            double end = now();
            worker.team->seconds[(size_t)i] += end - begin;
            begin = end;
        }
    }
}

bool is_known(const Head &operation) {
    if (operation.kind < 0 || operation.kind >= NUM_KINDS) return false;
    if (operation.kind == OP_HEADS) return ((const Heads &)operation).cache.head_dim <= MAX_HEAD_DIM;
    if (operation.kind == OP_ATTENTION) return ((const Attention &)operation).cache.head_dim <= MAX_HEAD_DIM;
    return true;
}

struct Pack {
    PackJob job;
    std::atomic<bool> failed{false};
};

void pack_together(void *argument, Worker &worker) {
    Pack &pack = *(Pack *)argument;
    if (!worker.team->kernels.pack(pack.job, worker)) pack.failed = true;
}

bool is_known(const PackJob &job) {
    const bool readable = job.integers || job.matrix_form == FORM_F32 || job.matrix_form == FORM_BF16 ||
                          job.matrix_form == FORM_F16;
    switch (job.packed.form) {
    case FORM_F32:
    case FORM_BF16:
        return readable && !job.integers;
    case FORM_I8:
        return readable;
    case FORM_I4_A8:
    case FORM_I8_GROUPS:
    case FORM_I4_GROUPS:
        return readable && job.packed.group > 0 && job.packed.group % 32 == 0;
    default:
        return false;
    }
}

int32_t pack(Team *team, const PackJob &job) {
    if (!is_known(job)) return STATUS_UNKNOWN;
    return guarded([&] {
        Pack pack{job};
        team->run(pack_together, &pack);
        return pack.failed ? STATUS_NO_MEMORY : STATUS_DONE;
    });
}

} // namespace
} // namespace isotoken

using namespace isotoken;

ISOTOKEN_EXPORT int32_t isotoken_num_isas(void) { return NUM_ISAS; }
ISOTOKEN_EXPORT const char *isotoken_isa_name(int32_t index) { return ISAS[index].kernels->name; }
ISOTOKEN_EXPORT int32_t isotoken_isa_runs(int32_t index) { return ISAS[index].runs(); }

ISOTOKEN_EXPORT Team *isotoken_team_start(int32_t isa, int32_t num_threads, const int32_t *cpus, int32_t spin_us) {
    Team *team = nullptr;
    errno = EINVAL;
    if (isa < 0 || isa >= NUM_ISAS || !ISAS[isa].runs()) return nullptr;
    const int32_t status = guarded([&] {
        team = new Team(*ISAS[isa].kernels, num_threads < 1 ? 1 : num_threads, cpus, spin_us);
        return STATUS_DONE;
    });
    if (status == STATUS_NO_MEMORY) errno = ENOMEM;
    return team;
}

ISOTOKEN_EXPORT void isotoken_team_destroy(Team *team) { delete team; }

ISOTOKEN_EXPORT int32_t isotoken_run(Team *team, const Head *const *program, int32_t num_ops, const Step *step) {
    for (int32_t i = 0; i < num_ops; i++)
        if (!is_known(*program[i])) return STATUS_UNKNOWN;
    return guarded([&] {
        Run run{program, num_ops, step};
        if (team->profiling && team->seconds.size() < (size_t)num_ops) team->seconds.resize((size_t)num_ops);
        team->run(run_program, &run);
        return run.failed ? STATUS_NO_MEMORY : STATUS_DONE;
    });
}

ISOTOKEN_EXPORT void isotoken_profile(Team *team, int32_t on, double *seconds, int32_t num_ops) {
    for (int32_t i = 0; seconds && i < num_ops; i++)
        seconds[i] = (size_t)i < team->seconds.size() ? team->seconds[(size_t)i] : 0;
    team->seconds.clear();
    team->profiling = on;
}

ISOTOKEN_EXPORT int32_t isotoken_pack(Team *team, const void *matrix, int32_t matrix_form, int64_t ld,
                                      const int32_t *order, const Weights *packed) {
    return pack(team, {matrix, nullptr, nullptr, order, ld, matrix_form, *packed});
}

ISOTOKEN_EXPORT int32_t isotoken_pack_quantised(Team *team, const int8_t *values, int64_t ld, const float *scales,
                                                const int32_t *order, const Weights *packed) {
    return pack(team, {nullptr, values, scales, order, ld, FORM_I8, *packed});
}

ISOTOKEN_EXPORT int32_t isotoken_sizeof(int32_t kind) {
    static const size_t OPERATIONS[] = {sizeof(Embed), sizeof(Norm),      sizeof(AddNorm), sizeof(Linear), sizeof(Heads),
                                        sizeof(Attention), sizeof(Route), sizeof(Gather),  sizeof(Combine)};
    static const size_t PARTS[] = {sizeof(Step), sizeof(Cache), sizeof(Operand), sizeof(Weights), sizeof(Routing),
                                   sizeof(SampleArgs)};
    if (kind >= 0 && kind < NUM_KINDS) return (int32_t)OPERATIONS[kind];
    if (kind >= 100 && kind < 106) return (int32_t)PARTS[kind - 100];
    return -1;
}
