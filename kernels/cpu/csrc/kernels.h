/* What an instruction set's unit offers: a function for each kind of operation. */
#ifndef ISOTOKEN_CPU_KERNELS_H
#define ISOTOKEN_CPU_KERNELS_H

#include "sample.h"
#include "worker.h"

namespace isotoken {

enum { NUM_KINDS = OP_COMBINE + 1 };

/* Does one thread's share of an operation. False: scratch memory ran out. */
typedef bool (*RunOperation)(const Head *operation, const Step &step, Worker &worker);

/* A matrix on its way into panels. */
struct PackJob {
    const void *matrix;  /* [rows, inputs] of matrix_form, or NULL: integers */
    const int8_t *integers;
    const float *scales; /* of the integers */
    const int32_t *order;
    int64_t ld;
    int32_t matrix_form;
    Weights packed;
};

typedef bool (*PackPanels)(const PackJob &job, Worker &worker);

/* One thread's part of a call of isotoken_sample. */
typedef void (*SampleRows)(const SampleArgs &args, Worker &worker);

struct Kernels {
    const char *name;
    RunOperation run[NUM_KINDS];
    PackPanels pack;
    SampleRows sample;
};

} // namespace isotoken
#endif
