/* What both Python types (dataplane_object.c, doorman_object.c) have in common: arguments in, a call without the GIL,
 * results and exceptions out. Signatures and the shapes of tuples are in cvpnd/_native.pyi.
 *
 * A method reads all its arguments, then calls the core without the GIL. Bytes that it passes on belong to Python
 * objects that its argument tuple holds, and bytes never change; what could (a list) is copied first. The core has locks
 * of its own, so two threads may be inside one object at once; the object lives as long as either holds it. */
#ifndef CVPND_BINDING_H
#define CVPND_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "dataplane.h"

/* -- calling the core --------------------------------------------------------------------------------------------- */

#define WITHOUT_GIL(statement)                                                                                       \
    do {                                                                                                             \
        Py_BEGIN_ALLOW_THREADS                                                                                       \
        statement;                                                                                                   \
        Py_END_ALLOW_THREADS                                                                                         \
    } while (0)

/* The last line of a method that returns None: `call` returns false when it failed, and has then filled in `failure`,
 * which exists inside it only. */
#define CALL_AND_RETURN(call)                                                                                        \
    do {                                                                                                             \
        struct failure failure;                                                                                      \
        bool done;                                                                                                   \
        WITHOUT_GIL(done = (call));                                                                                  \
        return done ? Py_NewRef(Py_None) : raise_failure(&failure);                                                  \
    } while (0)

/* NULL, with the exception that the kind of failure stands for. */
PyObject *raise_failure(const struct failure *failure);

/* The end of a tp_dealloc, after the core's part is gone. */
void free_object(PyObject *self);

/* -- arguments: "O&" converters ------------------------------------------------------------------------------------ */

int to_u32(PyObject *object, void *into); /* an id, or anything else that is 32 bits unsigned */
int to_u16(PyObject *object, void *into);
int to_ip(PyObject *object, void *into);         /* struct ip_address, from 4 or 16 bytes */
int to_descriptor(PyObject *object, void *into); /* int */

/* A struct socket_address: host, port, scope id. */
#define ADDRESS_FORMAT        "O&O&O&"
#define ADDRESS_INTO(address) to_ip, &(address).ip, to_u16, &(address).port, to_u32, &(address).scope_id

/* Descriptors belong to the core whatever happens: a method that takes some reads them before anything else, and
 * closes them when another argument is wrong. */
struct descriptors {
    size_t count;
    int fds[WORKERS_MAX];
};

/* From a sequence. Closes what it has read when it fails. */
bool to_descriptors(PyObject *object, struct descriptors *descriptors);
void close_descriptors(const struct descriptors *descriptors);

/* -- results ------------------------------------------------------------------------------------------------------- */

/* 4 or 16 bytes; none for an unset address. */
PyObject *from_ip(const struct ip_address *ip);

/* Whence and whither something came, for Py_BuildValue: host, port, scope id, local address. */
#define ARRIVAL_FORMAT            "NHIN"
#define ARRIVAL_OF(source, local) from_ip(&(source).ip), (source).port, (source).scope_id, from_ip(&(local))

/* A tuple of integers. */
PyObject *from_counts(const uint64_t *counts, Py_ssize_t length);

/* A list of what `from` makes of each item. Frees the items, whose first member points to the next, in any case. */
PyObject *list_from_chain(void *first, PyObject *(*from)(const void *item));

#endif
