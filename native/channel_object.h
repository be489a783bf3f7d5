/* The Python type around struct control_channel. */
#ifndef CVPND_CHANNEL_OBJECT_H
#define CVPND_CHANNEL_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyType_Spec channel_object_spec;

#endif
