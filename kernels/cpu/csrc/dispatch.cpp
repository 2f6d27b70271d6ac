/* The C interface: instruction sets, teams, and a program's run through its operations. */
#include "dispatch.h"
#include "team.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <new>
#include <system_error>

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

const Kernels *best() {
    for (const Isa &isa : ISAS)
        if (isa.runs()) return isa.kernels;
    return nullptr; /* not reached: plain runs everywhere */
}

std::atomic<const Kernels *> in_use{nullptr};

struct Run {
    const Head *const *program;
    int32_t num_ops;
    const Step *step;
    const Kernels *kernels;
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
        if (!run.kernels->run[operation->kind](operation, *run.step, worker)) run.failed = true;
        if (profiling) { /* what other threads still have to do counts for the next one */
            double end = now();
            worker.team->seconds[(size_t)i] += end - begin;
            begin = end;
        }
    }
}

struct Pack {
    PackJob job;
    PackPanels pack;
    std::atomic<bool> failed{false};
};

void pack_together(void *argument, Worker &worker) {
    Pack &pack = *(Pack *)argument;
    if (!pack.pack(pack.job, worker)) pack.failed = true;
}

int32_t pack(Team *team, const PackJob &job) {
    Pack pack{job, kernels_in_use().pack};
    team->run(pack_together, &pack);
    return pack.failed ? -1 : 0;
}

} // namespace

const Kernels &kernels_in_use() {
    const Kernels *kernels = in_use;
    if (!kernels) in_use = kernels = best();
    return *kernels;
}

} // namespace isotoken

using namespace isotoken;

ISOTOKEN_EXPORT int32_t isotoken_num_isas(void) { return NUM_ISAS; }
ISOTOKEN_EXPORT const char *isotoken_isa_name(int32_t index) { return ISAS[index].kernels->name; }
ISOTOKEN_EXPORT int32_t isotoken_isa_runs(int32_t index) { return ISAS[index].runs(); }

ISOTOKEN_EXPORT int32_t isotoken_use_isa(int32_t index) {
    if (index < 0 || index >= NUM_ISAS || !ISAS[index].runs()) return -1;
    in_use = ISAS[index].kernels;
    return 0;
}

ISOTOKEN_EXPORT Team *isotoken_team_create(int32_t num_threads, const int32_t *cpus, int32_t spin_us) {
    try {
        return new Team(num_threads < 1 ? 1 : num_threads, cpus, spin_us);
    } catch (const std::system_error &error) {
        errno = error.code().value();
    } catch (const std::bad_alloc &) {
        errno = ENOMEM;
    }
    return nullptr;
}

ISOTOKEN_EXPORT void isotoken_team_destroy(Team *team) { delete team; }

ISOTOKEN_EXPORT int32_t isotoken_run(Team *team, const Head *const *program, int32_t num_ops, const Step *step) {
    Run run{program, num_ops, step, &kernels_in_use()};
    if (team->profiling && team->seconds.size() < (size_t)num_ops) team->seconds.resize((size_t)num_ops);
    team->run(run_program, &run);
    return run.failed ? -1 : 0;
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
