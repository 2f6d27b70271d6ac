/* Which instruction set's unit runs. */
#ifndef ISOTOKEN_CPU_DISPATCH_H
#define ISOTOKEN_CPU_DISPATCH_H

#include "kernels.h"

namespace isotoken {

const Kernels &kernels_in_use();

} // namespace isotoken
#endif
