/* The body of an instruction set's unit: include it where ISOTOKEN_ISA is the name of the set. */
#include "kernels.h"
#include "simd.h"

#include "attention.h"
#include "embed.h"
#include "heads.h"
#include "linear.h"
#include "norm.h"
#include "pack.h"
#include "route.h"
#include "sample_rows.h"

namespace isotoken {
namespace {

template <class Operation, bool (*RUN)(const Operation &, const Step &, Worker &)>
bool run_as(const Head *operation, const Step &step, Worker &worker) {
    return RUN(*(const Operation *)operation, step, worker);
}

} // namespace

#define ISOTOKEN_PASTE(a, b) a##b
#define ISOTOKEN_TABLE(isa) ISOTOKEN_PASTE(KERNELS_, isa)
#define ISOTOKEN_QUOTE(name) #name
#define ISOTOKEN_NAME(isa) ISOTOKEN_QUOTE(isa)

extern const Kernels ISOTOKEN_TABLE(ISOTOKEN_ISA);
const Kernels ISOTOKEN_TABLE(ISOTOKEN_ISA) = {
    ISOTOKEN_NAME(ISOTOKEN_ISA),
    {run_as<Embed, run_embed>, run_as<Norm, run_norm>, run_as<AddNorm, run_add_norm>, run_as<Linear, run_linear>,
     run_as<Heads, run_heads>, run_as<Attention, run_attention>, run_as<Route, run_route>, run_as<Gather, run_gather>,
     run_as<Combine, run_combine>},
    pack_panels,
    sample_rows};

} // namespace isotoken
