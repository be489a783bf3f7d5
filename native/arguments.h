/* What both Python types (dataplane_object.c, doorman_object.c) need: arguments in, results and exceptions out. */
#ifndef CVPND_ARGUMENTS_H
#define CVPND_ARGUMENTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "dataplane.h"

/* NULL, with the exception that the kind of failure stands for. */
PyObject *raise_failure(const struct failure *failure);
PyObject *none_or_raise(bool done, const struct failure *failure);

/* "O&" converters. */
int to_u32(PyObject *object, void *into); /* an id, or anything else that is 32 bits unsigned */
int to_u16(PyObject *object, void *into);
int to_ip(PyObject *object, void *into); /* struct ip_address, from 4 or 16 bytes */

/* 4 or 16 bytes; none for an unset address. */
PyObject *from_ip(const struct ip_address *ip);
/* A tuple of integers. */
PyObject *from_counts(const uint64_t *counts, Py_ssize_t length);

#endif
