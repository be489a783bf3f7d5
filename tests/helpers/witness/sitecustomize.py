"""Python reads this first where a lab starts ``cvpnd`` or ``cvpnctl``: they write down which secrets they come to know
and which programs they start (``helpers/canaries.py``)."""

import contextlib
import os
import sys

if (_path := os.environ.get("CVPND_WITNESS")) and {"cvpnd", "cvpnd.ctl"} & set(sys.orig_argv):
    with contextlib.suppress(OSError):  # of a user of its own, who may not write there
        import witness

        witness.testify(_path)
if (_path := os.environ.get("CVPND_IN_USE")) and "cvpnd" in sys.orig_argv:
    import in_use

    in_use.answer(_path)
