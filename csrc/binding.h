/* What the binding has besides the declarations: which calls keep the interpreter's lock.
 *
 * Law of this room: included by the C file that cffi writes, after Python.h, and by no unit of the core. It rests on the
 * names of two macros of CPython that are used there; tests/c/test_json.py fails if they change.
 */
#ifndef DURABLE_LOG_BINDING_H
#define DURABLE_LOG_BINDING_H

#include <stdbool.h>
#include <string.h>

#include "durable_log.h"

/* The wrappers that cffi writes let go of the interpreter's lock around every call. Where threads wait for it, that
 * wakes one of them, which costs more than a call takes whose name ends in "_brief": those keep it. */
static bool dl_keeps_lock(const char *wrapper) {
    const size_t length = strlen(wrapper), suffix = sizeof "_brief" - 1;
    return length > suffix && memcmp(wrapper + length - suffix, "_brief", suffix) == 0;
}

/* The first opens a block that the second closes, as CPython's own do. */
#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS                                                                                         \
    {                                                                                                                  \
        PyThreadState *dl_thread = dl_keeps_lock(__func__) ? NULL : PyEval_SaveThread();
#define Py_END_ALLOW_THREADS                                                                                           \
    if (dl_thread) PyEval_RestoreThread(dl_thread);                                                                    \
    }

#endif
