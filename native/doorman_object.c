/* As dataplane_object.c does for the data plane: checks arguments, releases the GIL, calls doorman.h. */
#include "doorman_object.h"

#include <stdlib.h>
#include <unistd.h>

#include "binding.h"
#include "doorman.h"

struct doorman_object {
    PyObject_HEAD
    struct doorman *doorman;
};

static struct doorman *doorman_of(PyObject *self) { return ((struct doorman_object *)self)->doorman; }

/* -- arguments ---------------------------------------------------------------------------------------------------- */

static int to_session_id(PyObject *object, void *into)
{
    char *bytes;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(object, &bytes, &length) < 0)
        return 0;
    if (length != SESSION_ID_SIZE) {
        PyErr_SetString(PyExc_ValueError, "a session id has 8 bytes");
        return 0;
    }
    memcpy(into, bytes, SESSION_ID_SIZE);
    return 1;
}

/* (wrapping, key2, digest, direction, server key, allow stateful) -> struct protection *; see _native.pyi. */
static int to_protection(PyObject *object, void *into)
{
    struct protection_settings settings = {0};
    const char *key2, *server_key;
    Py_ssize_t key2_length, server_key_length;
    int shared, allow_stateful;
    if (!PyTuple_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "a protection is a tuple");
        return 0;
    }
    if (!PyArg_ParseTuple(object, "iy#siy#p:protection", &shared, &key2, &key2_length, &settings.digest,
                          &settings.direction, &server_key, &server_key_length, &allow_stateful))
        return 0;
    bool keyed = shared == WRAP_TLS_AUTH || shared == WRAP_TLS_CRYPT;
    if (shared < WRAP_REFUSED || shared > WRAP_TLS_CRYPT || key2_length != (keyed ? KEY2_SIZE : 0) ||
        (server_key_length != 0 && server_key_length != SERVER_KEY_SIZE)) {
        PyErr_SetString(PyExc_ValueError, "no such wrapping, or a key of another length");
        return 0;
    }
    settings.shared = (enum wrapping)shared;
    settings.key2 = (const uint8_t *)key2;
    settings.server_key = server_key_length == 0 ? NULL : (const uint8_t *)server_key;
    settings.allow_stateful = allow_stateful != 0;
    struct protection *protection = protection_new(&settings);
    if (protection == NULL) {
        PyErr_Format(PyExc_ValueError, "no digest %s, or no memory", settings.digest);
        return 0;
    }
    *(struct protection **)into = protection;
    return 1;
}

/* -- life --------------------------------------------------------------------------------------------------------- */

#define LIMITS_FORMAT "O&O&O&O&O&"
#define LIMITS_INTO(limits)                                                                                          \
    to_u32, &(limits).resets, to_u32, &(limits).resets_per_source, to_u32, &(limits).sessions, to_u32,               \
        &(limits).sessions_per_source, to_u32, &(limits).unproven_sessions

static PyObject *object_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *secret;
    struct door_limits limits;
    if (!PyArg_ParseTuple(args, "S" LIMITS_FORMAT ":Doorman", &secret, LIMITS_INTO(limits)))
        return NULL;
    struct doorman_object *self = (struct doorman_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    struct failure failure;
    WITHOUT_GIL(self->doorman = doorman_new((const uint8_t *)PyBytes_AS_STRING(secret),
                                            (size_t)PyBytes_GET_SIZE(secret), &limits, &failure));
    if (self->doorman == NULL) {
        raise_failure(&failure);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void object_dealloc(PyObject *self)
{
    WITHOUT_GIL(doorman_free(doorman_of(self)));
    free_object(self);
}

static PyObject *object_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    WITHOUT_GIL(doorman_close(doorman_of(self)));
    Py_RETURN_NONE;
}

/* -- listeners ---------------------------------------------------------------------------------------------------- */

static PyObject *object_add_listener(PyObject *self, PyObject *args)
{
    PyObject *fd_object, *listener_object, *slot_object, *protection_object;
    if (!PyArg_ParseTuple(args, "OOOO:add_listener", &listener_object, &fd_object, &slot_object, &protection_object))
        return NULL;
    int fd;
    if (!to_descriptor(fd_object, &fd))
        return NULL;
    uint32_t listener, slot_s;
    struct protection *protection;
    if (!to_u32(listener_object, &listener) || !to_u32(slot_object, &slot_s) ||
        !to_protection(protection_object, &protection)) {
        close(fd);
        return NULL;
    }
    CALL_AND_RETURN(doorman_add_listener(doorman_of(self), listener, fd, slot_s, protection, &failure));
}

static PyObject *object_set_protection(PyObject *self, PyObject *args)
{
    uint32_t listener;
    struct protection *protection;
    if (!PyArg_ParseTuple(args, "O&O&:set_protection", to_u32, &listener, to_protection, &protection))
        return NULL;
    CALL_AND_RETURN(doorman_set_protection(doorman_of(self), listener, protection, &failure));
}

static PyObject *object_stop_accepting(PyObject *self, PyObject *args)
{
    uint32_t listener;
    if (!PyArg_ParseTuple(args, "O&:stop_accepting", to_u32, &listener))
        return NULL;
    CALL_AND_RETURN(doorman_stop_accepting(doorman_of(self), listener, &failure));
}

static PyObject *object_remove_listener(PyObject *self, PyObject *args)
{
    uint32_t listener;
    if (!PyArg_ParseTuple(args, "O&:remove_listener", to_u32, &listener))
        return NULL;
    CALL_AND_RETURN(doorman_remove_listener(doorman_of(self), listener, &failure));
}

static PyObject *object_set_limits(PyObject *self, PyObject *args)
{
    struct door_limits limits;
    if (!PyArg_ParseTuple(args, LIMITS_FORMAT ":set_limits", LIMITS_INTO(limits)))
        return NULL;
    CALL_AND_RETURN(doorman_set_limits(doorman_of(self), &limits, &failure));
}

/* -- sessions ----------------------------------------------------------------------------------------------------- */

#define KEY_FORMAT    "O&" ADDRESS_FORMAT "O&"
#define KEY_INTO(key) to_u32, &(key).listener, ADDRESS_INTO((key).source), to_session_id, (key).session_id

static PyObject *object_know(PyObject *self, PyObject *args)
{
    struct door_key key = {0};
    int established;
    if (!PyArg_ParseTuple(args, KEY_FORMAT "p:know", KEY_INTO(key), &established))
        return NULL;
    bool known;
    WITHOUT_GIL(
        known = door_know(doorman_queue(doorman_of(self)), &key, established ? DOOR_ESTABLISHED : DOOR_HANDSHAKE));
    if (!known)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *object_forget(PyObject *self, PyObject *args)
{
    struct door_key key = {0};
    if (!PyArg_ParseTuple(args, KEY_FORMAT ":forget", KEY_INTO(key)))
        return NULL;
    WITHOUT_GIL(door_forget(doorman_queue(doorman_of(self)), &key));
    Py_RETURN_NONE;
}

/* -- what came ---------------------------------------------------------------------------------------------------- */

static PyObject *object_event_fd(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(doorman_queue(doorman_of(self))->fd);
}

_Static_assert(offsetof(struct door_item, next) == 0, "list_from_chain");

static PyObject *from_item(const void *chained)
{
    const struct door_item *item = chained;
    return Py_BuildValue("(I" ARRIVAL_FORMAT "y#O)", item->key.listener, ARRIVAL_OF(item->key.source, item->local),
                         (const char *)item->packet, (Py_ssize_t)item->length, item->proven ? Py_True : Py_False);
}

static PyObject *object_fetch(PyObject *self, PyObject *args)
{
    unsigned most[DOOR_CLASSES];
    if (!PyArg_ParseTuple(args, "O&O&O&O&:fetch", to_u32, &most[DOOR_ESTABLISHED], to_u32, &most[DOOR_HANDSHAKE],
                          to_u32, &most[DOOR_STRANGER], to_u32, &most[DOOR_DATA]))
        return NULL;
    struct door_item *items;
    WITHOUT_GIL(items = door_fetch(doorman_queue(doorman_of(self)), most));
    return list_from_chain(items, from_item);
}

static PyObject *object_drops(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t drops[CONTROL_DROP_COUNT];
    doorman_drops(doorman_of(self), drops);
    return from_counts(drops, CONTROL_DROP_COUNT);
}

static PyObject *object_totals(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t totals[DOOR_TOTAL_COUNT];
    doorman_totals(doorman_of(self), totals);
    return from_counts(totals, DOOR_TOTAL_COUNT);
}

static PyMethodDef object_methods[] = {
    {"add_listener", object_add_listener, METH_VARARGS, NULL},
    {"set_protection", object_set_protection, METH_VARARGS, NULL},
    {"stop_accepting", object_stop_accepting, METH_VARARGS, NULL},
    {"remove_listener", object_remove_listener, METH_VARARGS, NULL},
    {"set_limits", object_set_limits, METH_VARARGS, NULL},
    {"know", object_know, METH_VARARGS, NULL},
    {"forget", object_forget, METH_VARARGS, NULL},
    {"event_fd", object_event_fd, METH_NOARGS, NULL},
    {"fetch", object_fetch, METH_VARARGS, NULL},
    {"drops", object_drops, METH_NOARGS, NULL},
    {"totals", object_totals, METH_NOARGS, NULL},
    {"close", object_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot object_slots[] = {
    {Py_tp_new, object_new},
    {Py_tp_dealloc, object_dealloc},
    {Py_tp_methods, object_methods},
    {Py_tp_doc, "The doorman in C; signatures in cvpnd/_native.pyi."},
    {0, NULL},
};

PyType_Spec doorman_object_spec = {
    .name = "cvpnd._native.Doorman",
    .basicsize = sizeof(struct doorman_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = object_slots,
};

/* -- the judgement alone ------------------------------------------------------------------------------------------ */

static PyObject *judge(struct stranger_rules *rules, const struct moment *now, const struct socket_address *source,
                       PyObject *packet)
{
    const uint8_t *bytes = (const uint8_t *)PyBytes_AS_STRING(packet);
    size_t length = (size_t)PyBytes_GET_SIZE(packet);
    struct opened opened;
    enum control_drop drop;
    uint8_t reply[REPLY_MAX];
    enum wish wish = stranger_judge(rules, now, bytes, length, source, &opened, &drop);
    if (wish == WISH_NOTHING)
        return Py_BuildValue("(isy#)", wish, CONTROL_DROP_WORDS[drop], "", (Py_ssize_t)0);
    size_t reply_length = wish == WISH_ANSWER ? stranger_answer(rules, now, length, source, &opened, reply) : 0;
    return Py_BuildValue("(isy#)", wish, "", (const char *)reply, (Py_ssize_t)reply_length);
}

static PyObject *judge_stranger(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *secret, *packet;
    struct protection *protection;
    struct moment now = {0};
    struct socket_address source;
    uint32_t slot_s;
    unsigned long long monotonic_s;
    if (!PyArg_ParseTuple(args, "SO&KO&" ADDRESS_FORMAT "SO&:judge_stranger", &secret, to_u32, &slot_s, &monotonic_s,
                          to_u32, &now.wall_s, ADDRESS_INTO(source), &packet, to_protection, &protection))
        return NULL;
    now.monotonic_s = monotonic_s;
    struct reset_cookie cookie;
    PyObject *result = NULL;
    if (slot_s == 0) {
        PyErr_SetString(PyExc_ValueError, "a cookie needs time");
    } else if (!reset_cookie_init(&cookie, (const uint8_t *)PyBytes_AS_STRING(secret),
                                  (size_t)PyBytes_GET_SIZE(secret))) {
        PyErr_NoMemory();
    } else {
        struct stranger_rules rules = {&cookie, protection, slot_s};
        result = judge(&rules, &now, &source, packet);
        reset_cookie_destroy(&cookie);
    }
    protection_free(protection);
    return result;
}

PyMethodDef doorman_functions[] = {
    {"judge_stranger", judge_stranger, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
