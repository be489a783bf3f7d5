/* ControlChannel: arguments in, bytes and words out.
 *
 * Like ControlKeys, and unlike the other types, it keeps the GIL, which is its lock: a call takes a few microseconds. It
 * holds a reference to the keys that it was made with. */
#include "channel_object.h"

#include "binding.h"
#include "control_channel.h"
#include "control_keys_object.h"

struct channel_object {
    PyObject_HEAD
    struct control_channel channel;
    PyObject *keys; /* of channel.first */
};

static struct control_channel *channel_of(PyObject *self) { return &((struct channel_object *)self)->channel; }

/* -- arguments ---------------------------------------------------------------------------------------------------- */

static bool has_arguments(Py_ssize_t count, Py_ssize_t expected)
{
    if (count == expected)
        return true;
    PyErr_Format(PyExc_TypeError, "%zd arguments, not %zd", expected, count);
    return false;
}

static bool to_double(PyObject *object, double *value)
{
    *value = PyFloat_AsDouble(object);
    return *value != -1.0 || !PyErr_Occurred();
}

static bool to_key_id(PyObject *object, unsigned *key_id)
{
    long value = PyLong_AsLong(object);
    if (value == -1 && PyErr_Occurred())
        return false;
    if (value < 0 || value >= CHANNEL_KEY_IDS) {
        PyErr_SetString(PyExc_ValueError, "key ids are 0 to 7");
        return false;
    }
    *key_id = (unsigned)value;
    return true;
}

/* NULL with KeyError: there is no such key. The last argument to be read: reading another may run Python, which might
 * close the key. */
static struct reliable *to_layer(PyObject *self, PyObject *object)
{
    unsigned key_id;
    if (!to_key_id(object, &key_id))
        return NULL;
    struct reliable *layer = channel_of(self)->layers[key_id];
    if (layer == NULL)
        PyErr_SetObject(PyExc_KeyError, object);
    return layer;
}

/* -- life --------------------------------------------------------------------------------------------------------- */

static PyObject *channel_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    const char *local, *remote;
    Py_ssize_t local_length, remote_length;
    PyObject *keys_object;
    uint32_t first_id, wall_s;
    if (!PyArg_ParseTuple(args, "y#y#OO&O&:ControlChannel", &local, &local_length, &remote, &remote_length,
                          &keys_object, to_u32, &first_id, to_u32, &wall_s))
        return NULL;
    if (local_length != SESSION_ID_SIZE || remote_length != SESSION_ID_SIZE) {
        PyErr_SetString(PyExc_ValueError, "a session id has 8 bytes");
        return NULL;
    }
    PyObject *module = PyType_GetModule(type), *keys_type = NULL;
    if (module == NULL || (keys_type = PyObject_GetAttrString(module, "ControlKeys")) == NULL)
        return NULL;
    bool fits = (PyObject *)Py_TYPE(keys_object) == keys_type; /* nothing can be derived from it */
    Py_DECREF(keys_type);
    if (!fits) {
        PyErr_SetString(PyExc_TypeError, "ControlKeys are needed");
        return NULL;
    }
    struct channel_object *self = (struct channel_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    struct keys_object *keys = (struct keys_object *)keys_object;
    self->keys = Py_NewRef(keys_object);
    control_channel_init(&self->channel, (const uint8_t *)local, (const uint8_t *)remote, &keys->keys,
                         keys->brings_key, first_id, wall_s);
    return (PyObject *)self;
}

static void channel_dealloc(PyObject *self)
{
    struct channel_object *object = (struct channel_object *)self;
    control_channel_destroy(&object->channel);
    Py_XDECREF(object->keys);
    free_object(self);
}

/* -- key ids ------------------------------------------------------------------------------------------------------ */

static PyObject *channel_open_key(PyObject *self, PyObject *args)
{
    PyObject *key_id_object;
    Py_ssize_t payload_limit;
    uint32_t first_id;
    double first_timeout_s;
    unsigned key_id;
    if (!PyArg_ParseTuple(args, "OnO&d:open_key", &key_id_object, &payload_limit, to_u32, &first_id,
                          &first_timeout_s) ||
        !to_key_id(key_id_object, &key_id))
        return NULL;
    if (payload_limit < 1 || payload_limit > CONTROL_PAYLOAD_MAX || channel_of(self)->layers[key_id] != NULL) {
        PyErr_SetString(PyExc_ValueError, "there is such a key, or its packets are too long");
        return NULL;
    }
    if (!control_channel_open_key(channel_of(self), key_id, (size_t)payload_limit, first_id, first_timeout_s))
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *channel_close_key(PyObject *self, PyObject *object)
{
    unsigned key_id;
    if (!to_key_id(object, &key_id))
        return NULL;
    control_channel_close_key(channel_of(self), key_id);
    Py_RETURN_NONE;
}

static PyObject *channel_go_dynamic(PyObject *self, PyObject *args)
{
    const char *key2;
    Py_ssize_t length;
    uint32_t wall_s;
    if (!PyArg_ParseTuple(args, "y#O&:go_dynamic", &key2, &length, to_u32, &wall_s))
        return NULL;
    if (length != KEY2_SIZE || channel_of(self)->later != NULL) {
        PyErr_SetString(PyExc_ValueError, "a key of another length, or the second one");
        return NULL;
    }
    if (!control_channel_go_dynamic(channel_of(self), (const uint8_t *)key2, wall_s))
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *channel_overhead(PyObject *self, PyObject *object)
{
    unsigned key_id;
    if (!to_key_id(object, &key_id))
        return NULL;
    return PyLong_FromSize_t(control_channel_overhead(channel_of(self), key_id));
}

/* -- receiving ---------------------------------------------------------------------------------------------------- */

static PyObject *from_received(enum channel_result result, const struct channel_received *received)
{
    switch (result) {
    case CHANNEL_RESET: Py_RETURN_NONE;
    case CHANNEL_DROPPED: return PyUnicode_FromString(CONTROL_DROP_WORDS[received->drop]);
    case CHANNEL_FAILED: return PyErr_NoMemory();
    case CHANNEL_TAKEN: break;
    }
    size_t length = cursor_left(&received->in_order), ready = received->layer->ready_bytes;
    if (received->layer->ready == NULL)
        return PyBytes_FromStringAndSize((const char *)received->in_order.at, (Py_ssize_t)length);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)ready);
    if (bytes != NULL)
        reliable_take(received->layer, (uint8_t *)PyBytes_AS_STRING(bytes));
    return bytes;
}

static PyObject *channel_receive(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    double now;
    char *packet;
    Py_ssize_t length;
    if (!has_arguments(count, 2) || PyBytes_AsStringAndSize(args[0], &packet, &length) < 0 ||
        !to_double(args[1], &now))
        return NULL;
    uint8_t scratch[CONTROL_DATAGRAM_MAX];
    struct channel_received received;
    return from_received(
        control_channel_receive(channel_of(self), (const uint8_t *)packet, (size_t)length, now, scratch, &received),
        &received);
}

static PyObject *channel_take_reset(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct channel_received received;
    return from_received(control_channel_take_reset(channel_of(self), &received), &received);
}

static PyObject *channel_take_duplicates(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    unsigned long total = 0;
    for (unsigned i = 0; i < CHANNEL_KEY_IDS; i++) {
        struct reliable *layer = channel_of(self)->layers[i];
        if (layer == NULL)
            continue;
        total += layer->duplicates;
        layer->duplicates = 0;
    }
    return PyLong_FromUnsignedLong(total);
}

static PyObject *channel_all_acknowledged(PyObject *self, PyObject *object)
{
    const struct reliable *layer = to_layer(self, object);
    return layer == NULL ? NULL : PyBool_FromLong(reliable_all_acknowledged(layer));
}

static PyObject *channel_heard(PyObject *self, PyObject *object)
{
    const struct reliable *layer = to_layer(self, object);
    return layer == NULL ? NULL : PyBool_FromLong(reliable_heard(layer));
}

static PyObject *channel_restart(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    double now;
    struct reliable *layer;
    if (!has_arguments(count, 2) || !to_double(args[1], &now) || (layer = to_layer(self, args[0])) == NULL)
        return NULL;
    reliable_restart(layer, now);
    Py_RETURN_NONE;
}

static PyObject *channel_set_retransmits(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    int on = has_arguments(count, 2) ? PyObject_IsTrue(args[1]) : -1;
    struct reliable *layer = on < 0 ? NULL : to_layer(self, args[0]);
    if (layer == NULL)
        return NULL;
    layer->retransmits = on != 0;
    Py_RETURN_NONE;
}

/* -- sending ------------------------------------------------------------------------------------------------------ */

static PyObject *channel_queue(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    long opcode = has_arguments(count, 2) ? PyLong_AsLong(args[1]) : -1;
    if (opcode == -1 && PyErr_Occurred())
        return NULL;
    if (opcode < 0 || opcode > UINT8_MAX >> 3) {
        PyErr_SetString(PyExc_ValueError, "no such opcode");
        return NULL;
    }
    struct reliable *layer = to_layer(self, args[0]);
    if (layer == NULL)
        return NULL;
    if (!reliable_queue(layer, (uint8_t)opcode, NULL, 0))
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *channel_queue_stream(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct reliable *layer = has_arguments(count, 2) ? to_layer(self, args[0]) : NULL;
    char *bytes;
    Py_ssize_t signed_length;
    if (layer == NULL || PyBytes_AsStringAndSize(args[1], &bytes, &signed_length) < 0)
        return NULL;
    size_t left = (size_t)signed_length;
    while (left > 0) {
        size_t length = left < layer->payload_limit ? left : layer->payload_limit;
        if (!reliable_queue(layer, P_CONTROL_V1, (const uint8_t *)bytes, length))
            return PyErr_NoMemory();
        bytes += length;
        left -= length;
    }
    Py_RETURN_NONE;
}

static PyObject *channel_stop_sending(PyObject *self, PyObject *object)
{
    struct reliable *layer = to_layer(self, object);
    if (layer == NULL)
        return NULL;
    reliable_stop_sending(layer);
    Py_RETURN_NONE;
}

static bool send_key(struct control_channel *channel, unsigned key_id, double now, PyObject *list)
{
    struct reliable *layer = channel->layers[key_id];
    struct reliable_packet packet;
    unsigned position = 0;
    reliable_begin_sending(layer, now);
    while (reliable_next(layer, now, &position, &packet)) {
        uint8_t wire[CHANNEL_PACKET_MAX];
        size_t length = control_channel_wrap_packet(channel, key_id, &packet, wire);
        if (length == 0) {
            PyErr_SetString(PyExc_OSError, "a control packet cannot be wrapped");
            return false;
        }
        PyObject *bytes = PyBytes_FromStringAndSize((const char *)wire, (Py_ssize_t)length);
        if (bytes == NULL || PyList_Append(list, bytes) < 0) {
            Py_XDECREF(bytes);
            return false;
        }
        Py_DECREF(bytes);
    }
    return true;
}

static PyObject *channel_packets_to_send(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    double now;
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "packets_to_send(now[, key id])");
        return NULL;
    }
    if (!to_double(args[0], &now) || (count == 2 && to_layer(self, args[1]) == NULL))
        return NULL;
    unsigned only = 0;
    if (count == 2 && !to_key_id(args[1], &only))
        return NULL;
    struct control_channel *channel = channel_of(self);
    PyObject *list = PyList_New(0);
    for (unsigned i = 0; list != NULL && i < channel->layer_count; i++)
        if ((count == 1 || channel->order[i] == only) && !send_key(channel, channel->order[i], now, list))
            Py_CLEAR(list);
    return list;
}

static PyObject *channel_next_timeout(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const struct control_channel *channel = channel_of(self);
    double earliest = 0, due;
    bool any = false;
    for (unsigned i = 0; i < channel->layer_count; i++) {
        if (!reliable_next_timeout(channel->layers[channel->order[i]], &due) || (any && due >= earliest))
            continue;
        any = true;
        earliest = due;
    }
    if (!any)
        Py_RETURN_NONE;
    return PyFloat_FromDouble(earliest);
}

static PyObject *channel_backlog_bytes(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const struct control_channel *channel = channel_of(self);
    size_t most = 0;
    for (unsigned i = 0; i < channel->layer_count; i++)
        if (channel->layers[channel->order[i]]->backlog_bytes > most)
            most = channel->layers[channel->order[i]]->backlog_bytes;
    return PyLong_FromSize_t(most);
}

/* -- for tests ---------------------------------------------------------------------------------------------------- */

static PyObject *from_ids(const uint32_t *ids, unsigned count)
{
    PyObject *list = PyList_New(0);
    for (unsigned i = 0; list != NULL && i < count; i++) {
        PyObject *id = PyLong_FromUnsignedLong(ids[i]);
        if (id == NULL || PyList_Append(list, id) < 0)
            Py_CLEAR(list);
        Py_XDECREF(id);
    }
    return list;
}

static PyObject *from_wrap(const struct channel_wrap *wrap)
{
    const struct control_replay *seen = wrap->seen;
    bool begun = seen != NULL && seen->begun;
    return Py_BuildValue("(IIL)", wrap->id, begun ? seen->highest : 0u,
                         begun ? (long long)seen->time : (long long)-1);
}

static PyObject *from_in_flight(const struct reliable *layer)
{
    PyObject *list = PyList_New(0);
    for (unsigned i = 0; list != NULL && i < layer->flying; i++) {
        const struct in_flight *sent = &layer->in_flight[i];
        PyObject *item = Py_BuildValue("(IdI)", sent->packet_id, sent->due, sent->higher_acks);
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *from_layer(unsigned key_id, struct reliable *layer)
{
    uint32_t early[RECEIVE_WINDOW];
    unsigned count = 0;
    for (unsigned ahead = 0; ahead < RECEIVE_WINDOW; ahead++)
        if (layer->early[(layer->early_first + ahead) % RECEIVE_WINDOW] != NULL)
            early[count++] = layer->expected + ahead;
    return Py_BuildValue("(IIINNNNn)", key_id, layer->expected, layer->next_id, from_in_flight(layer),
                         from_ids(early, count), from_ids(layer->acks, layer->acks_waiting),
                         from_ids(layer->recent, layer->acks_recent), (Py_ssize_t)layer->backlog_bytes);
}

static PyObject *channel_inspect(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct control_channel *channel = channel_of(self);
    PyObject *layers = PyList_New(0);
    for (unsigned i = 0; layers != NULL && i < channel->layer_count; i++) {
        PyObject *layer = from_layer(channel->order[i], channel->layers[channel->order[i]]);
        if (layer == NULL || PyList_Append(layers, layer) < 0)
            Py_CLEAR(layers);
        Py_XDECREF(layer);
    }
    if (layers == NULL)
        return NULL;
    return Py_BuildValue("(NNN)", from_wrap(control_channel_wrap(channel, 0)),
                         from_wrap(control_channel_wrap(channel, 1)), layers);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef channel_methods[] = {
    {"open_key", channel_open_key, METH_VARARGS, NULL},
    {"close_key", channel_close_key, METH_O, NULL},
    {"go_dynamic", channel_go_dynamic, METH_VARARGS, NULL},
    {"overhead", channel_overhead, METH_O, NULL},
    {"receive", FAST(channel_receive), METH_FASTCALL, NULL},
    {"take_reset", channel_take_reset, METH_NOARGS, NULL},
    {"take_duplicates", channel_take_duplicates, METH_NOARGS, NULL},
    {"all_acknowledged", channel_all_acknowledged, METH_O, NULL},
    {"heard", channel_heard, METH_O, NULL},
    {"restart", FAST(channel_restart), METH_FASTCALL, NULL},
    {"set_retransmits", FAST(channel_set_retransmits), METH_FASTCALL, NULL},
    {"queue", FAST(channel_queue), METH_FASTCALL, NULL},
    {"queue_stream", FAST(channel_queue_stream), METH_FASTCALL, NULL},
    {"stop_sending", channel_stop_sending, METH_O, NULL},
    {"packets_to_send", FAST(channel_packets_to_send), METH_FASTCALL, NULL},
    {"next_timeout", channel_next_timeout, METH_NOARGS, NULL},
    {"backlog_bytes", channel_backlog_bytes, METH_NOARGS, NULL},
    {"inspect", channel_inspect, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot channel_slots[] = {
    {Py_tp_new, channel_new},
    {Py_tp_dealloc, channel_dealloc},
    {Py_tp_methods, channel_methods},
    {Py_tp_doc, "A session's control channel in C; signatures in cvpnd/_native.pyi."},
    {0, NULL},
};

PyType_Spec channel_object_spec = {
    .name = "cvpnd._native.ControlChannel",
    .basicsize = sizeof(struct channel_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = channel_slots,
};
