#define ISOTOKEN_ISA plain
#include "isa_unit.h"
