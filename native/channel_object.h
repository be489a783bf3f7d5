/* The Python types ControlKeys and ControlChannel (control_keys.h, control_channel.h). */
#ifndef CVPND_CHANNEL_OBJECT_H
#define CVPND_CHANNEL_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Both, into the module; -1 with an exception set. */
int add_channel_types(PyObject *module);

#endif
