/* TlsCalls and TlsPipe: addresses and bytes in, records out. And what a certificate would be refused for.
 *
 * The GIL is a pipe's lock, but during a step of the handshake, which may take a millisecond and asks Python about the
 * certificate: that gives it back, and the pipe's one owner waits for the step. A pipe holds references to its calls and
 * to whoever owns the SSL. */
#include "tls_object.h"

#include <string.h>

#include "binding.h"
#include "certificates.h"
#include "tls_pipe.h"

struct calls_object {
    PyObject_HEAD
    struct tls_calls calls;
};

struct pipe_object {
    PyObject_HEAD
    struct tls_pipe pipe;
    PyObject *calls, *owner;
};

static struct tls_pipe *pipe_of(PyObject *self) { return &((struct pipe_object *)self)->pipe; }

/* -- calls -------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name, *type;
    size_t offset;
} CALLS[] = {
#define X(result, name, arguments, type) {#name, type, offsetof(struct tls_calls, name)},
    TLS_CALLS(X)
#undef X
};

enum { CALL_COUNT = sizeof CALLS / sizeof CALLS[0] };

/* Pointers of either kind have one representation here (POSIX: dlsym). */
_Static_assert(sizeof(void *) == sizeof(void (*)(void)), "addresses of functions");

static bool to_pointer(PyObject *object, void **pointer)
{
    *pointer = PyLong_AsVoidPtr(object);
    if (*pointer == NULL && !PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "there is nothing at address 0");
    return *pointer != NULL;
}

static PyObject *calls_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    struct calls_object *self = NULL;
    if (PyTuple_GET_SIZE(args) != CALL_COUNT) {
        PyErr_Format(PyExc_TypeError, "TlsCalls takes %d addresses", CALL_COUNT);
        return NULL;
    }
    if ((self = (struct calls_object *)type->tp_alloc(type, 0)) == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < CALL_COUNT; i++) {
        void *address;
        if (!to_pointer(PyTuple_GET_ITEM(args, i), &address)) {
            Py_DECREF(self);
            return NULL;
        }
        memcpy((char *)&self->calls + CALLS[i].offset, &address, sizeof address);
    }
    return (PyObject *)self;
}

static PyObject *calls_judge_certificates(PyObject *self, PyObject *address)
{
    void *context;
    if (!to_pointer(address, &context))
        return NULL;
    tls_judge_certificates(&((struct calls_object *)self)->calls, context);
    Py_RETURN_NONE;
}

static PyMethodDef calls_methods[] = {
    {"judge_certificates", calls_judge_certificates, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot calls_slots[] = {
    {Py_tp_new, calls_new},
    {Py_tp_methods, calls_methods},
    {Py_tp_dealloc, free_object},
    {Py_tp_doc, "Functions of OpenSSL by their addresses; signatures in cvpnd/_native.pyi."},
    {0, NULL},
};

static PyType_Spec calls_spec = {
    .name = "cvpnd._native.TlsCalls",
    .basicsize = sizeof(struct calls_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = calls_slots,
};

/* -- pipes -------------------------------------------------------------------------------------------------------- */

static PyObject *pipe_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *calls, *owner, *addresses[3];
    void *pointers[3];
    int server;
    if (!PyArg_ParseTuple(args, "OOOOOp:TlsPipe", &calls, &owner, &addresses[0], &addresses[1], &addresses[2],
                          &server))
        return NULL;
    PyObject *module = PyType_GetModule(type), *calls_type = NULL;
    if (module == NULL || (calls_type = PyObject_GetAttrString(module, "TlsCalls")) == NULL)
        return NULL;
    bool fits = (PyObject *)Py_TYPE(calls) == calls_type; /* nothing can be derived from it */
    Py_DECREF(calls_type);
    if (!fits) {
        PyErr_SetString(PyExc_TypeError, "TlsCalls are needed");
        return NULL;
    }
    for (size_t i = 0; i < 3; i++)
        if (!to_pointer(addresses[i], &pointers[i]))
            return NULL;
    struct pipe_object *self = (struct pipe_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->calls = Py_NewRef(calls);
    self->owner = Py_NewRef(owner);
    tls_pipe_init(&self->pipe, &((struct calls_object *)calls)->calls, pointers[0], pointers[1], pointers[2],
                  server != 0);
    return (PyObject *)self;
}

static void pipe_dealloc(PyObject *self)
{
    struct pipe_object *object = (struct pipe_object *)self;
    Py_XDECREF(object->calls);
    Py_XDECREF(object->owner);
    free_object(self);
}

static enum tls_result handshake(struct tls_pipe *pipe, struct tls_visit *visit)
{
    enum tls_result result = TLS_GOES_ON;
    if (visit->first)
        WITHOUT_GIL(result = tls_pipe_handshake(pipe, visit));
    return result;
}

static PyObject *pipe_start(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct tls_visit visit = {.first = true};
    return PyLong_FromLong(handshake(pipe_of(self), &visit) == TLS_FAILED ? visit.answer : 1);
}

/* What is read into `record` may be a password. */
static enum tls_result read_records(struct tls_pipe *pipe, struct tls_visit *visit, PyObject *list)
{
    uint8_t record[TLS_RECORD_MAX];
    size_t length;
    enum tls_result result;
    while ((result = tls_pipe_read(pipe, record, &length, visit)) == TLS_GOES_ON) {
        PyObject *bytes = PyByteArray_FromStringAndSize((const char *)record, (Py_ssize_t)length);
        explicit_bzero(record, length);
        bool added = bytes != NULL && PyList_Append(list, bytes) == 0;
        Py_XDECREF(bytes);
        if (!added)
            return TLS_NO_MEMORY;
    }
    return result;
}

static PyObject *pipe_receive(PyObject *self, PyObject *data)
{
    char *bytes;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(data, &bytes, &length) < 0)
        return NULL;
    PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    struct tls_pipe *pipe = pipe_of(self);
    struct tls_visit visit;
    enum tls_result result = tls_pipe_feed(pipe, (const uint8_t *)bytes, (size_t)length, &visit);
    if (result == TLS_GOES_ON && (result = handshake(pipe, &visit)) == TLS_GOES_ON &&
        (result = read_records(pipe, &visit, list)) == TLS_WAITS)
        tls_pipe_leave(pipe, &visit);
    if (result == TLS_WAITS)
        return list;
    Py_DECREF(list);
    if (result == TLS_FAILED)
        return PyLong_FromLong(visit.answer);
    return PyErr_Occurred() ? NULL : PyErr_NoMemory();
}

static PyObject *pipe_send(PyObject *self, PyObject *data)
{
    char *bytes;
    Py_ssize_t length;
    int answer = 0;
    if (PyBytes_AsStringAndSize(data, &bytes, &length) < 0)
        return NULL;
    bool sent = tls_pipe_send(pipe_of(self), (const uint8_t *)bytes, (size_t)length, &answer) == TLS_GOES_ON;
    return PyLong_FromLong(sent ? 1 : answer);
}

static PyObject *pipe_output(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    size_t length = tls_pipe_output_length(pipe_of(self));
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (bytes == NULL || length == 0 ||
        tls_pipe_take_output(pipe_of(self), (uint8_t *)PyBytes_AS_STRING(bytes), length))
        return bytes;
    Py_DECREF(bytes);
    return PyErr_NoMemory();
}

static PyObject *pipe_established(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(pipe_of(self)->established);
}

static PyObject *pipe_silent_records(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(pipe_of(self)->silent_records);
}

static PyObject *pipe_handshake_too_long(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(pipe_of(self)->handshake_too_long);
}

static PyObject *pipe_certificates_problem(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(CERTIFICATES_SENTENCES[pipe_of(self)->certificates]);
}

static PyGetSetDef pipe_attributes[] = {
    {"certificates_problem", pipe_certificates_problem, NULL, NULL, NULL},
    {"established", pipe_established, NULL, NULL, NULL},
    {"handshake_too_long", pipe_handshake_too_long, NULL, NULL, NULL},
    {"silent_records", pipe_silent_records, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef pipe_methods[] = {
    {"start", pipe_start, METH_NOARGS, NULL},
    {"receive", pipe_receive, METH_O, NULL},
    {"send", pipe_send, METH_O, NULL},
    {"output", pipe_output, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pipe_slots[] = {
    {Py_tp_new, pipe_new},
    {Py_tp_dealloc, pipe_dealloc},
    {Py_tp_methods, pipe_methods},
    {Py_tp_getset, pipe_attributes},
    {Py_tp_doc, "A TLS connection between bytes and records; signatures in cvpnd/_native.pyi."},
    {0, NULL},
};

static PyType_Spec pipe_spec = {
    .name = "cvpnd._native.TlsPipe",
    .basicsize = sizeof(struct pipe_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pipe_slots,
};

/* -- certificates ------------------------------------------------------------------------------------------------- */

static PyObject *judge_certificate(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer der;
    if (!PyArg_ParseTuple(args, "y*:judge_certificate", &der))
        return NULL;
    enum certificates_problem problem = certificate_judge(der.buf, (size_t)der.len, NULL);
    PyBuffer_Release(&der);
    return PyUnicode_FromString(CERTIFICATES_SENTENCES[problem]);
}

static PyMethodDef functions[] = {
    {"judge_certificate", judge_certificate, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* -- for the module ----------------------------------------------------------------------------------------------- */

/* Name and type of each call, in order. */
static PyObject *call_types(void)
{
    PyObject *tuple = PyTuple_New(CALL_COUNT);
    for (Py_ssize_t i = 0; tuple != NULL && i < CALL_COUNT; i++) {
        PyObject *call = Py_BuildValue("(ss)", CALLS[i].name, CALLS[i].type);
        if (call == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, call);
    }
    return tuple;
}

int add_tls_types(PyObject *module)
{
    PyObject *calls = call_types();
    int added = PyModule_AddObjectRef(module, "TLS_CALLS", calls);
    Py_XDECREF(calls);
    PyType_Spec *const specs[] = {&calls_spec, &pipe_spec};
    for (size_t i = 0; added == 0 && i < sizeof specs / sizeof specs[0]; i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[i], NULL);
        added = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
        Py_XDECREF(type);
    }
    return added == 0 ? PyModule_AddFunctions(module, functions) : added;
}
