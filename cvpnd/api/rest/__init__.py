"""REST under ``/v1``, one file per noun.

A handler checks the request's form, calls one operation and renders its answer. Every error is
``{"error": {"code", "message"}}``; the codes are AWS's where AWS has one (``errors.py``). Times are seconds since the
epoch, networks and addresses text.
"""

from cvpnd.api.rest.app import build_admin_app

__all__ = ["build_admin_app"]
