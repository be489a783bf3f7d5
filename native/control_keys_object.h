/* The Python type around struct control_keys. */
#ifndef CVPND_CONTROL_KEYS_OBJECT_H
#define CVPND_CONTROL_KEYS_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "control_keys.h"

struct keys_object {
    PyObject_HEAD
    struct control_keys keys;
    bool brings_key;
};

extern PyType_Spec control_keys_object_spec;

#endif
