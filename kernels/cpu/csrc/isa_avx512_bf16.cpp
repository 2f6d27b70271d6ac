#define ISOTOKEN_ISA avx512_bf16
#include "isa_unit.h"
