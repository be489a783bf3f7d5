/* The Python type around struct dataplane. */
#ifndef CVPND_DATAPLANE_OBJECT_H
#define CVPND_DATAPLANE_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyType_Spec dataplane_object_spec;

#endif
