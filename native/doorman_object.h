/* The Python type around struct doorman, and the doorman's judgement alone. */
#ifndef CVPND_DOORMAN_OBJECT_H
#define CVPND_DOORMAN_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyType_Spec doorman_object_spec;

/* Module functions. */
extern PyMethodDef doorman_functions[];

#endif
