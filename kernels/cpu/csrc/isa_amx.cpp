#define ISOTOKEN_ISA amx
#include "isa_unit.h"
