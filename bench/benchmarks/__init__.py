"""Our daemon and the stock OpenVPN server, alternately in one run: ``make bench``, or ``python -P -m benchmarks``.

``experiment.py`` says what an experiment is, ``run.py`` runs them round by round, and ``report.py`` makes tables. One
file for each subject; bench/README.md says how to read the results.
"""
