/* ControlKeys: checks arguments, fills in struct control_keys.
 *
 * Its contexts are shared by all channels of an endpoint. The GIL, which they keep, is the lock. */
#include "control_keys_object.h"

#include "binding.h"

static PyObject *keys_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    int kind, direction, brings_key;
    const char *key2, *digest;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "iy#sip:ControlKeys", &kind, &key2, &length, &digest, &direction, &brings_key))
        return NULL;
    bool keyed = kind == WRAP_TLS_AUTH || kind == WRAP_TLS_CRYPT;
    if ((!keyed && kind != WRAP_PLAIN) || length != (keyed ? KEY2_SIZE : 0)) {
        PyErr_SetString(PyExc_ValueError, "no such wrapping, or a key of another length");
        return NULL;
    }
    struct keys_object *self = (struct keys_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->brings_key = brings_key != 0;
    if (!control_keys_init(&self->keys, (enum wrapping)kind, digest) ||
        (keyed && !control_keys_set(&self->keys, (const uint8_t *)key2, direction))) {
        PyErr_Format(PyExc_ValueError, "no digest %s, or no memory", digest);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void keys_dealloc(PyObject *self)
{
    control_keys_destroy(&((struct keys_object *)self)->keys);
    free_object(self);
}

static PyType_Slot keys_slots[] = {
    {Py_tp_new, keys_new},
    {Py_tp_dealloc, keys_dealloc},
    {Py_tp_doc, "One wrapping and its keys; signatures in cvpnd/_native.pyi."},
    {0, NULL},
};

PyType_Spec control_keys_object_spec = {
    .name = "cvpnd._native.ControlKeys",
    .basicsize = sizeof(struct keys_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = keys_slots,
};
