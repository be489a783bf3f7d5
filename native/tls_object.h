/* The Python types TlsCalls and TlsPipe (tls_pipe.h). */
#ifndef CVPND_TLS_OBJECT_H
#define CVPND_TLS_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Both, what TlsCalls takes and judge_certificate, into the module; -1 with an exception set. */
int add_tls_types(PyObject *module);

#endif
