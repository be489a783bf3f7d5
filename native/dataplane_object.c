/* Checks arguments, releases the GIL, calls dataplane.h, turns a failure into an exception. Nothing else.
 *
 * Addresses are bytes here (4 or 16), bit sets are little-endian bytes: cvpnd/dataplane/native.py makes them. */
#include "dataplane_object.h"

#include <stdlib.h>
#include <unistd.h>

#include "binding.h"
#include "dataplane.h"
#include "pacer.h"

struct dataplane_object {
    PyObject_HEAD
    struct dataplane *plane;
};

static struct dataplane *plane_of(PyObject *self) { return ((struct dataplane_object *)self)->plane; }

/* -- arguments ---------------------------------------------------------------------------------------------------- */

static int to_key_id(PyObject *object, void *into)
{
    uint32_t value;
    if (!to_u32(object, &value))
        return 0;
    if (value >= KEY_IDS) {
        PyErr_Format(PyExc_ValueError, "key id %R is not in 0..7", object);
        return 0;
    }
    *(uint8_t *)into = (uint8_t)value;
    return 1;
}

/* -- life --------------------------------------------------------------------------------------------------------- */

static PyObject *object_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"workers",    "packet_id_limit", "block_limit", "failure_limit", "epoch_limit",
                            "last_epoch", "pause_us",        "crypto",      "link_offload",  NULL};
    struct dataplane_options options = dataplane_options_default();
    struct key_limits *limits = &options.limits;
    uint32_t workers;
    uint32_t packet_id_limit = UINT32_MAX;
    unsigned long long block_limit = limits->blocks_rekey;
    unsigned long long failure_limit = limits->failures;
    unsigned long long epoch_limit = limits->epoch.use;
    uint32_t last_epoch = limits->epoch.last;
    const char *crypto = "auto";
    int link_offload = options.link_offload;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|$O&KKKO&O&sp:DataPlane", names, to_u32, &workers, to_u32,
                                     &packet_id_limit, &block_limit, &failure_limit, &epoch_limit, to_u32,
                                     &last_epoch, to_u32, &options.pause_us, &crypto, &link_offload))
        return NULL;
    if (packet_id_limit == 0 || epoch_limit == 0) {
        PyErr_SetString(PyExc_ValueError, "a limit is not positive");
        return NULL;
    }
    if (last_epoch == 0 || last_epoch > EPOCH_LAST) {
        PyErr_Format(PyExc_ValueError, "last_epoch is not in 1..%d", EPOCH_LAST);
        return NULL;
    }
    options.link_offload = link_offload;
    options.crypto = aead_choice_find(crypto);
    if (options.crypto == AEAD_CHOICES) {
        PyErr_Format(PyExc_ValueError, "crypto: \"%s\" is none of auto, openssl, ipsec-mb", crypto);
        return NULL;
    }
    if (options.pause_us > PACER_PAUSE_MAX_US) {
        PyErr_Format(PyExc_ValueError, "pause_us is greater than %d", PACER_PAUSE_MAX_US);
        return NULL;
    }
    key_limits_set_packet_ids(limits, packet_id_limit);
    limits->blocks_rekey = block_limit;
    limits->failures = failure_limit;
    limits->failures_rekey = failure_limit / 2;
    limits->epoch.use = epoch_limit;
    key_limits_set_epochs(limits, last_epoch);

    struct dataplane_object *self = (struct dataplane_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    struct failure failure;
    WITHOUT_GIL(self->plane = dataplane_new(workers, &options, &failure));
    if (self->plane == NULL) {
        raise_failure(&failure);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void object_dealloc(PyObject *self)
{
    WITHOUT_GIL(dataplane_free(plane_of(self)));
    free_object(self);
}

static PyObject *object_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    WITHOUT_GIL(dataplane_close(plane_of(self)));
    Py_RETURN_NONE;
}

static PyObject *get_workers(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(dataplane_workers(plane_of(self)));
}

static PyObject *get_crypto_backend(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(dataplane_crypto_backend(plane_of(self)));
}

/* -- endpoints and listeners -------------------------------------------------------------------------------------- */

static PyObject *object_add_endpoint(PyObject *self, PyObject *args)
{
    PyObject *endpoint_object, *fds_object, *offload_object;
    struct descriptors fds;
    uint32_t endpoint, offload;
    if (!PyArg_ParseTuple(args, "OOO:add_endpoint", &endpoint_object, &fds_object, &offload_object) ||
        !to_descriptors(fds_object, &fds))
        return NULL;
    if (!to_u32(endpoint_object, &endpoint) || !to_u32(offload_object, &offload)) {
        close_descriptors(&fds);
        return NULL;
    }
    CALL_AND_RETURN(dataplane_add_endpoint(plane_of(self), endpoint, fds.fds, fds.count, offload, &failure));
}

static PyObject *object_remove_endpoint(PyObject *self, PyObject *args)
{
    uint32_t endpoint;
    if (!PyArg_ParseTuple(args, "O&:remove_endpoint", to_u32, &endpoint))
        return NULL;
    CALL_AND_RETURN(dataplane_remove_endpoint(plane_of(self), endpoint, &failure));
}

/* (network bytes, prefix length, bit set bytes); the bit set is borrowed from the tuple. */
static bool to_rule(PyObject *object, struct rule *rule)
{
    PyObject *network;
    uint32_t length;
    const char *groups;
    Py_ssize_t groups_length;
    if (!PyTuple_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "a rule is a tuple");
        return false;
    }
    if (!PyArg_ParseTuple(object, "SO&y#:rule", &network, to_u32, &length, &groups, &groups_length))
        return false;
    size_t size = (size_t)PyBytes_GET_SIZE(network);
    if ((size != 4 && size != 16) || length > size * 8) {
        PyErr_SetString(PyExc_ValueError, "no prefix of an IPv4 or IPv6 address");
        return false;
    }
    *rule = (struct rule){
        .prefix = {.length = (uint8_t)length, .v6 = size == 16},
        .groups = (const uint8_t *)groups,
        .groups_length = (size_t)groups_length,
    };
    memcpy(rule->prefix.bytes, PyBytes_AS_STRING(network), size);
    return true;
}

static PyObject *object_set_rules(PyObject *self, PyObject *args)
{
    uint32_t endpoint;
    PyObject *rules_object;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "O&O:set_rules", to_u32, &endpoint, &rules_object))
        return NULL;
    /* A list could change while the GIL is released; the tuple keeps the bit sets alive. */
    PyObject *sequence = PySequence_Tuple(rules_object);
    if (sequence == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(sequence);
    struct rule *rules = calloc((size_t)count + 1, sizeof *rules);
    if (rules == NULL) {
        PyErr_NoMemory();
        goto finally;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if (!to_rule(PyTuple_GET_ITEM(sequence, i), &rules[i]))
            goto finally;
    struct failure failure;
    bool done;
    WITHOUT_GIL(done = dataplane_set_rules(plane_of(self), endpoint, rules, (uint32_t)count, &failure));
    result = done ? Py_NewRef(Py_None) : raise_failure(&failure);
finally:
    free(rules);
    Py_DECREF(sequence);
    return result;
}

static PyObject *object_add_listener(PyObject *self, PyObject *args)
{
    PyObject *listener_object, *endpoint_object, *fds_object;
    struct descriptors fds;
    uint32_t listener, endpoint;
    if (!PyArg_ParseTuple(args, "OOO:add_listener", &listener_object, &endpoint_object, &fds_object) ||
        !to_descriptors(fds_object, &fds))
        return NULL;
    if (!to_u32(listener_object, &listener) || !to_u32(endpoint_object, &endpoint)) {
        close_descriptors(&fds);
        return NULL;
    }
    CALL_AND_RETURN(dataplane_add_listener(plane_of(self), listener, endpoint, fds.fds, fds.count, &failure));
}

static PyObject *object_remove_listener(PyObject *self, PyObject *args)
{
    uint32_t listener;
    if (!PyArg_ParseTuple(args, "O&:remove_listener", to_u32, &listener))
        return NULL;
    CALL_AND_RETURN(dataplane_remove_listener(plane_of(self), listener, &failure));
}

/* -- peers -------------------------------------------------------------------------------------------------------- */

static PyObject *object_add_peer(PyObject *self, PyObject *args)
{
    uint32_t peer;
    PyObject *addresses_object;
    const char *groups;
    Py_ssize_t groups_length;
    struct peer_settings settings = {0};
    struct path_settings *path = &settings.path;
    struct ip_address addresses[LEASES_MAX];
    uint16_t framing;
    int data_v1, asks;
    if (!PyArg_ParseTuple(args, "O&O&O!y#O&O&O&O&O&O&O&pO&pO&:add_peer", to_u32, &peer, to_u32, &settings.endpoint,
                          &PyTuple_Type, &addresses_object, &groups, &groups_length, to_u32,
                          &settings.ping_interval_s, to_u32, &settings.timeout_s, to_u16, &path->mss_v4, to_u16,
                          &path->mss_v6, to_u16, &path->tunnel_mtu, to_u16, &path->outer_mtu, to_u16, &path->header,
                          &asks, to_u32, &settings.remote_id, &data_v1, to_u16, &framing))
        return NULL;
    path->asks = asks;
    if (PyTuple_GET_SIZE(addresses_object) > LEASES_MAX)
        return PyErr_Format(PyExc_ValueError, "more than %d addresses", LEASES_MAX);
    settings.address_count = (unsigned)PyTuple_GET_SIZE(addresses_object);
    for (unsigned i = 0; i < settings.address_count; i++)
        if (!to_ip(PyTuple_GET_ITEM(addresses_object, i), &addresses[i]))
            return NULL;
    settings.addresses = addresses;
    settings.groups = (const uint8_t *)groups;
    settings.groups_length = (size_t)groups_length;
    settings.data_v1 = data_v1;
    settings.framing = framing;
    CALL_AND_RETURN(dataplane_add_peer(plane_of(self), peer, &settings, &failure));
}

static PyObject *object_remove_peer(PyObject *self, PyObject *args)
{
    uint32_t peer;
    if (!PyArg_ParseTuple(args, "O&:remove_peer", to_u32, &peer))
        return NULL;
    CALL_AND_RETURN(dataplane_remove_peer(plane_of(self), peer, &failure));
}

static PyObject *object_set_remote(PyObject *self, PyObject *args)
{
    uint32_t peer, listener;
    struct socket_address address = {0};
    PyObject *local_object;
    struct ip_address local;
    if (!PyArg_ParseTuple(args, "O&O&" ADDRESS_FORMAT "S:set_remote", to_u32, &peer, to_u32, &listener,
                          ADDRESS_INTO(address), &local_object))
        return NULL;
    if (address.port == 0) {
        PyErr_SetString(PyExc_ValueError, "port 0");
        return NULL;
    }
    bool has_local = PyBytes_GET_SIZE(local_object) > 0;
    if (has_local && !to_ip(local_object, &local))
        return NULL;
    CALL_AND_RETURN(
        dataplane_set_remote(plane_of(self), peer, listener, &address, has_local ? &local : NULL, &failure));
}

static PyObject *object_attach_tcp(PyObject *self, PyObject *args)
{
    PyObject *peer_object, *fd_object, *received;
    uint32_t peer;
    if (!PyArg_ParseTuple(args, "OOO:attach_tcp", &peer_object, &fd_object, &received))
        return NULL;
    int fd;
    if (!to_descriptor(fd_object, &fd))
        return NULL;
    if (!PyBytes_Check(received))
        PyErr_SetString(PyExc_TypeError, "received is bytes");
    if (PyErr_Occurred() || !to_u32(peer_object, &peer)) {
        close(fd);
        return NULL;
    }
    CALL_AND_RETURN(dataplane_attach_tcp(plane_of(self), peer, fd, (const uint8_t *)PyBytes_AS_STRING(received),
                                         (size_t)PyBytes_GET_SIZE(received), &failure));
}

static PyObject *object_send_control(PyObject *self, PyObject *args)
{
    uint32_t peer;
    PyObject *packet;
    if (!PyArg_ParseTuple(args, "O&S:send_control", to_u32, &peer, &packet))
        return NULL;
    CALL_AND_RETURN(dataplane_send_control(plane_of(self), peer, (const uint8_t *)PyBytes_AS_STRING(packet),
                                           (size_t)PyBytes_GET_SIZE(packet), &failure));
}

static PyObject *object_inject(PyObject *self, PyObject *args)
{
    uint32_t peer;
    PyObject *packet;
    if (!PyArg_ParseTuple(args, "O&S:inject", to_u32, &peer, &packet))
        return NULL;
    CALL_AND_RETURN(dataplane_inject(plane_of(self), peer, (const uint8_t *)PyBytes_AS_STRING(packet),
                                     (size_t)PyBytes_GET_SIZE(packet), &failure));
}

static PyObject *object_set_groups(PyObject *self, PyObject *args)
{
    uint32_t peer;
    PyObject *groups;
    if (!PyArg_ParseTuple(args, "O&S:set_groups", to_u32, &peer, &groups))
        return NULL;
    CALL_AND_RETURN(dataplane_set_groups(plane_of(self), peer, (const uint8_t *)PyBytes_AS_STRING(groups),
                                         (size_t)PyBytes_GET_SIZE(groups), &failure));
}

/* -- keys --------------------------------------------------------------------------------------------------------- */

static PyObject *object_install_key(PyObject *self, PyObject *args)
{
    uint32_t peer;
    uint8_t key_id;
    const char *cipher, *digest;
    PyObject *open_key, *open_iv, *seal_key, *seal_iv;
    int epoch;
    if (!PyArg_ParseTuple(args, "O&O&sSSSSps:install_key", to_u32, &peer, to_key_id, &key_id, &cipher, &open_key,
                          &open_iv, &seal_key, &seal_iv, &epoch, &digest))
        return NULL;
    enum aead_cipher_id id = AEAD_CIPHERS;
    struct cbc_suite cbc;
    const bool is_cbc = digest[0] != 0;
    if (is_cbc) {
        if (epoch || !cbc_suite_find(&cbc, cipher, digest))
            return PyErr_Format(PyExc_ValueError, "no CBC cipher %s with %s", cipher, digest);
    } else if ((id = aead_cipher_find(cipher)) == AEAD_CIPHERS) {
        return PyErr_Format(PyExc_ValueError, "no data channel cipher %s", cipher);
    }
    size_t of_key = is_cbc ? cbc_key_size(&cbc) : epoch ? EPOCH_SECRET_SIZE : AEAD_CIPHER[id].key_size;
    size_t of_iv = is_cbc ? cbc.digest->size : epoch ? 0 : IMPLICIT_IV_SIZE;
    Py_ssize_t key_size = (Py_ssize_t)of_key, iv_size = (Py_ssize_t)of_iv;
    if (PyBytes_GET_SIZE(open_key) != key_size || PyBytes_GET_SIZE(seal_key) != key_size)
        return PyErr_Format(PyExc_ValueError, "%s takes keys of %zd bytes", cipher, key_size);
    if (PyBytes_GET_SIZE(open_iv) != iv_size || PyBytes_GET_SIZE(seal_iv) != iv_size)
        return PyErr_Format(PyExc_ValueError, "%s of %zd bytes here", is_cbc ? "HMAC keys are" : "implicit IVs are",
                            iv_size);
    const struct peer_key_material material = {
        .cipher = id,
        .open_key = (const uint8_t *)PyBytes_AS_STRING(open_key),
        .open_iv = (const uint8_t *)PyBytes_AS_STRING(open_iv),
        .seal_key = (const uint8_t *)PyBytes_AS_STRING(seal_key),
        .seal_iv = (const uint8_t *)PyBytes_AS_STRING(seal_iv),
        .epoch = epoch,
        .cbc = is_cbc ? &cbc : NULL,
    };
    CALL_AND_RETURN(dataplane_install_key(plane_of(self), peer, key_id, &material, &failure));
}

static PyObject *object_use_key(PyObject *self, PyObject *args)
{
    uint32_t peer;
    uint8_t key_id;
    if (!PyArg_ParseTuple(args, "O&O&:use_key", to_u32, &peer, to_key_id, &key_id))
        return NULL;
    CALL_AND_RETURN(dataplane_use_key(plane_of(self), peer, key_id, &failure));
}

static PyObject *object_remove_key(PyObject *self, PyObject *args)
{
    uint32_t peer;
    uint8_t key_id;
    if (!PyArg_ParseTuple(args, "O&O&:remove_key", to_u32, &peer, to_key_id, &key_id))
        return NULL;
    CALL_AND_RETURN(dataplane_remove_key(plane_of(self), peer, key_id, &failure));
}

/* -- what happened ------------------------------------------------------------------------------------------------ */

static PyObject *object_event_fd(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct failure failure;
    int fd;
    bool done;
    WITHOUT_GIL(done = dataplane_event_fd(plane_of(self), &fd, &failure));
    return done ? PyLong_FromLong(fd) : raise_failure(&failure);
}

_Static_assert(offsetof(struct event, next) == 0, "list_from_chain");

static PyObject *from_event(const void *item)
{
    const struct event *event = item;
    Py_ssize_t length = (Py_ssize_t)event->length;
    const char *bytes = (const char *)event->bytes;
    switch (event->kind) {
    case EVENT_STRAY_CONTROL:
        return Py_BuildValue("(iI" ARRIVAL_FORMAT "y#)", event->kind, event->listener,
                             ARRIVAL_OF(event->source, event->local), bytes, length);
    case EVENT_TCP_CONTROL: return Py_BuildValue("(iIy#)", event->kind, event->peer_id, bytes, length);
    case EVENT_TCP_CLOSED: return Py_BuildValue("(iIs#)", event->kind, event->peer_id, bytes, length);
    case EVENT_FLOAT_SEEN:
        return Py_BuildValue("(iII" ARRIVAL_FORMAT ")", event->kind, event->peer_id, event->listener,
                             ARRIVAL_OF(event->source, event->local));
    case EVENT_PEER_TIMEOUT:
    case EVENT_PEER_EXIT: return Py_BuildValue("(iI)", event->kind, event->peer_id);
    case EVENT_KEY_USED:
    case EVENT_REKEY_NEEDED: return Py_BuildValue("(iII)", event->kind, event->peer_id, event->key_id);
    }
    Py_UNREACHABLE();
}

static PyObject *object_poll_events(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct event *events;
    WITHOUT_GIL(events = dataplane_take_events(plane_of(self)));
    return list_from_chain(events, from_event);
}

static PyObject *object_peer_stats(PyObject *self, PyObject *args)
{
    uint32_t peer;
    if (!PyArg_ParseTuple(args, "O&:peer_stats", to_u32, &peer))
        return NULL;
    struct failure failure;
    struct peer_statistics statistics;
    bool done;
    WITHOUT_GIL(done = dataplane_peer_statistics(plane_of(self), peer, &statistics, &failure));
    if (!done)
        return raise_failure(&failure);
    return Py_BuildValue("(KKKKdK)", (unsigned long long)statistics.bytes_in,
                         (unsigned long long)statistics.packets_in, (unsigned long long)statistics.bytes_out,
                         (unsigned long long)statistics.packets_out, (double)statistics.idle_ms / 1000.0,
                         (unsigned long long)statistics.packets_denied);
}

static PyObject *object_drops(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t drops[DROP_REASON_COUNT];
    dataplane_drops(plane_of(self), drops);
    return from_counts(drops, DROP_REASON_COUNT);
}

static PyObject *object_totals(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t totals[TOTAL_COUNT];
    dataplane_totals(plane_of(self), totals);
    return from_counts(totals, TOTAL_COUNT);
}

/* -- the type ----------------------------------------------------------------------------------------------------- */

static PyMethodDef object_methods[] = {
    {"add_endpoint", object_add_endpoint, METH_VARARGS, NULL},
    {"remove_endpoint", object_remove_endpoint, METH_VARARGS, NULL},
    {"set_rules", object_set_rules, METH_VARARGS, NULL},
    {"add_listener", object_add_listener, METH_VARARGS, NULL},
    {"remove_listener", object_remove_listener, METH_VARARGS, NULL},
    {"add_peer", object_add_peer, METH_VARARGS, NULL},
    {"remove_peer", object_remove_peer, METH_VARARGS, NULL},
    {"set_remote", object_set_remote, METH_VARARGS, NULL},
    {"attach_tcp", object_attach_tcp, METH_VARARGS, NULL},
    {"send_control", object_send_control, METH_VARARGS, NULL},
    {"inject", object_inject, METH_VARARGS, NULL},
    {"set_groups", object_set_groups, METH_VARARGS, NULL},
    {"install_key", object_install_key, METH_VARARGS, NULL},
    {"use_key", object_use_key, METH_VARARGS, NULL},
    {"remove_key", object_remove_key, METH_VARARGS, NULL},
    {"event_fd", object_event_fd, METH_NOARGS, NULL},
    {"poll_events", object_poll_events, METH_NOARGS, NULL},
    {"peer_stats", object_peer_stats, METH_VARARGS, NULL},
    {"drops", object_drops, METH_NOARGS, NULL},
    {"totals", object_totals, METH_NOARGS, NULL},
    {"close", object_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef object_getters[] = {
    {"workers", get_workers, NULL, NULL, NULL},
    {"crypto_backend", get_crypto_backend, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot object_slots[] = {
    {Py_tp_new, object_new},
    {Py_tp_dealloc, object_dealloc},
    {Py_tp_methods, object_methods},
    {Py_tp_getset, object_getters},
    {Py_tp_doc, "The data plane in C; signatures in cvpnd/_native.pyi."},
    {0, NULL},
};

PyType_Spec dataplane_object_spec = {
    .name = "cvpnd._native.DataPlane",
    .basicsize = sizeof(struct dataplane_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = object_slots,
};
