#include "binding.h"

#include <stdlib.h>
#include <unistd.h>

PyObject *raise_failure(const struct failure *failure)
{
    switch (failure->kind) {
    case FAILURE_MISSING: PyErr_SetString(PyExc_KeyError, failure->text); break;
    case FAILURE_INVALID: PyErr_SetString(PyExc_ValueError, failure->text); break;
    case FAILURE_MEMORY: PyErr_NoMemory(); break;
    case FAILURE_SYSTEM: {
        PyObject *arguments = Py_BuildValue("(is)", failure->error, strerror(failure->error));
        if (arguments != NULL) {
            PyErr_SetObject(PyExc_OSError, arguments);
            Py_DECREF(arguments);
        }
        break;
    }
    }
    return NULL;
}

void free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type); /* heap types are held by their objects */
}

int to_u32(PyObject *object, void *into)
{
    unsigned long value = PyLong_AsUnsignedLong(object);
    if (value == (unsigned long)-1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            PyErr_Format(PyExc_ValueError, "%R is out of range", object);
        return 0;
    }
    if (value > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%R is out of range", object);
        return 0;
    }
    *(uint32_t *)into = (uint32_t)value;
    return 1;
}

int to_u16(PyObject *object, void *into)
{
    uint32_t value;
    if (!to_u32(object, &value))
        return 0;
    if (value > UINT16_MAX) {
        PyErr_Format(PyExc_ValueError, "%R is out of range", object);
        return 0;
    }
    *(uint16_t *)into = (uint16_t)value;
    return 1;
}

int to_ip(PyObject *object, void *into)
{
    char *bytes;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(object, &bytes, &length) < 0)
        return 0;
    if (length != 4 && length != 16) {
        PyErr_SetString(PyExc_ValueError, "an address has 4 or 16 bytes");
        return 0;
    }
    *(struct ip_address *)into =
        length == 4 ? ip_from_v4((const uint8_t *)bytes) : ip_from_v6((const uint8_t *)bytes);
    return 1;
}

int to_descriptor(PyObject *object, void *into)
{
    long fd = PyLong_AsLong(object);
    if (fd == -1 && PyErr_Occurred())
        return 0;
    if (fd < 0 || fd > INT_MAX) {
        PyErr_Format(PyExc_ValueError, "%ld is no descriptor", fd);
        return 0;
    }
    *(int *)into = (int)fd;
    return 1;
}

void close_descriptors(const struct descriptors *descriptors)
{
    for (size_t i = 0; i < descriptors->count; i++)
        close(descriptors->fds[i]);
}

bool to_descriptors(PyObject *object, struct descriptors *descriptors)
{
    descriptors->count = 0;
    bool good = true;
    PyObject *sequence = PySequence_Fast(object, "descriptors are a sequence");
    if (sequence == NULL)
        return false;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(sequence); i++) {
        int fd;
        if (!to_descriptor(PySequence_Fast_GET_ITEM(sequence, i), &fd)) {
            good = false;
        } else if (descriptors->count == WORKERS_MAX) {
            PyErr_SetString(PyExc_ValueError, "more descriptors than there can be workers");
            close(fd);
            good = false;
        } else {
            descriptors->fds[descriptors->count++] = fd;
        }
    }
    Py_DECREF(sequence);
    if (!good)
        close_descriptors(descriptors);
    return good;
}

PyObject *from_ip(const struct ip_address *ip)
{
    if (ip_is_unset(ip))
        return PyBytes_FromStringAndSize(NULL, 0);
    if (ip_is_v4(ip))
        return PyBytes_FromStringAndSize((const char *)ip->bytes + 12, 4);
    return PyBytes_FromStringAndSize((const char *)ip->bytes, 16);
}

PyObject *from_counts(const uint64_t *counts, Py_ssize_t length)
{
    PyObject *tuple = PyTuple_New(length);
    for (Py_ssize_t i = 0; tuple != NULL && i < length; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(counts[i]);
        if (count == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, count);
    }
    return tuple;
}

PyObject *list_from_chain(void *first, PyObject *(*from)(const void *item))
{
    PyObject *list = PyList_New(0);
    void *item = first;
    while (item != NULL) {
        void *next = *(void **)item;
        PyObject *made = list == NULL ? NULL : from(item);
        if (list != NULL && (made == NULL || PyList_Append(list, made) < 0))
            Py_CLEAR(list);
        Py_XDECREF(made);
        free(item);
        item = next;
    }
    return list;
}
