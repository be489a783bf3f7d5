/* cvpnd._native: the types of data plane, doorman, control channel and TLS, and the words they count under. */
#include "channel_object.h"
#include "control_keys_object.h"
#include "dataplane_object.h"
#include "doorman_object.h"
#include "tls_object.h"

#include "counters.h"
#include "doorman.h"
#include "events.h"

static PyObject *tuple_of_words(const char *const *words, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *word = PyUnicode_FromString(words[i]);
        if (word == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, word);
    }
    return tuple;
}

/* Takes the reference to `value`, which may be NULL with an exception set. */
static int add(PyObject *module, const char *name, PyObject *value)
{
    int result = PyModule_AddObjectRef(module, name, value);
    Py_XDECREF(value);
    return result;
}

static int module_exec(PyObject *module)
{
    static const struct {
        const char *name;
        int value;
    } constants[] = {
        {"STRAY_CONTROL", EVENT_STRAY_CONTROL},
        {"TCP_CONTROL", EVENT_TCP_CONTROL},
        {"TCP_CLOSED", EVENT_TCP_CLOSED},
        {"FLOAT_SEEN", EVENT_FLOAT_SEEN},
        {"PEER_TIMEOUT", EVENT_PEER_TIMEOUT},
        {"PEER_EXIT", EVENT_PEER_EXIT},
        {"KEY_USED", EVENT_KEY_USED},
        {"REKEY_NEEDED", EVENT_REKEY_NEEDED},
        {"WRAP_REFUSED", WRAP_REFUSED},
        {"WRAP_PLAIN", WRAP_PLAIN},
        {"WRAP_TLS_AUTH", WRAP_TLS_AUTH},
        {"WRAP_TLS_CRYPT", WRAP_TLS_CRYPT},
        {"WISH_NOTHING", WISH_NOTHING},
        {"WISH_ANSWER", WISH_ANSWER},
        {"WISH_BEGIN", WISH_BEGIN},
        {"WISH_BEGIN_UNPROVEN", WISH_BEGIN_UNPROVEN},
    };
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    if (add(module, "DROP_REASONS", tuple_of_words(DROP_WORDS, DROP_REASON_COUNT)) < 0 ||
        add(module, "TOTALS", tuple_of_words(TOTAL_WORDS, TOTAL_COUNT)) < 0 ||
        add(module, "CONTROL_DROPS", tuple_of_words(CONTROL_DROP_WORDS, CONTROL_DROP_COUNT)) < 0 ||
        add(module, "DOOR_TOTALS", tuple_of_words(DOOR_TOTAL_WORDS, DOOR_TOTAL_COUNT)) < 0 ||
        add(module, "Doorman", PyType_FromModuleAndSpec(module, &doorman_object_spec, NULL)) < 0 ||
        add(module, "ControlKeys", PyType_FromModuleAndSpec(module, &control_keys_object_spec, NULL)) < 0 ||
        add(module, "ControlChannel", PyType_FromModuleAndSpec(module, &channel_object_spec, NULL)) < 0 ||
        add(module, "DataPlane", PyType_FromModuleAndSpec(module, &dataplane_object_spec, NULL)) < 0)
        return -1;
    return add_tls_types(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cvpnd._native",
    .m_doc = "The data plane, the doorman and control channels in C; see cvpnd/_native.pyi.",
    .m_methods = doorman_functions,
    .m_size = 0, /* no state: the types are held by the module's dictionary */
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module_definition); }
