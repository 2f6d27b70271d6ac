/* What the parts of the C interface share: no exception crosses it. */
#ifndef ISOTOKEN_CPU_DISPATCH_H
#define ISOTOKEN_CPU_DISPATCH_H

#include "program.h"

#include <cerrno>
#include <new>
#include <system_error>

namespace isotoken {

/* Return what `call` returns, a Status, or what its exception comes to. */
template <class Call> int32_t guarded(Call call) noexcept {
    try {
        return call();
    } catch (const std::system_error &error) {
        errno = error.code().value();
        return STATUS_NO_THREADS;
    } catch (...) { /* std::bad_alloc: nothing else is thrown */
        return STATUS_NO_MEMORY;
    }
}

} // namespace isotoken
#endif
