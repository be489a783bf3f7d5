"""The ways in for machines, all thin skins on ``endpoints.service.Operations``.

``rest/`` is the REST API under ``/v1`` that ``cvpnctl`` speaks over the admin socket, ``metrics.py`` what Prometheus
reads, ``server.py`` runs either in the daemon's event loop.
"""
