# Every target installs what it needs by itself (Debian 12, Ubuntu 24.04): Debian packages, a virtual environment,
# the C build. What is there already is left alone, so that a second run starts at once.

# The distribution's Python where there is one, as the service has it: what is tested and measured is what runs.
PYTHON       ?= $(or $(wildcard /usr/bin/python3),python3)
VENV         := .venv
LOGS         := build/log
FUZZ_SECONDS ?= 5
WORKERS      ?= 4
ARGS         ?=

SHELL         := /bin/bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

# -- what the machine has to have ------------------------------------------------------------------------------

# A Python that does not come from Debian (pyenv, /usr/local) brings its own headers and venv module.
DEBIAN_PYTHON := $(if $(filter-out /usr/bin/python3,$(shell command -v $(PYTHON))),,python3 python3-dev python3-venv)

# Faster packet crypto, which there is for one architecture only.
IPSEC_MB := $(if $(filter x86_64,$(shell uname -m)),libipsec-mb-dev)

PACKAGES_build := $(DEBIAN_PYTHON) gcc libc6-dev libssl-dev $(IPSEC_MB) ninja-build pkg-config
PACKAGES_run   := $(PACKAGES_build) iproute2 nftables xmlsec1
# /usr/bin/python3 and no other: a service does not see what lies below /root or /home.
PACKAGES_install := $(PACKAGES_run) dpkg-dev python3 python3-dev python3-venv
PACKAGES_lint  := $(PACKAGES_build) clang
PACKAGES_lab   := $(PACKAGES_run) conntrack curl ethtool iperf3 iputils-ping openvpn procps tcpdump
PACKAGES_test  := $(PACKAGES_lab) clang easy-rsa faketime libclang-rt-dev libltdl7 libpcre3 libtalloc2 libwrap0 openssl postgresql sqlite3 systemd systemd-container
PACKAGES_service := $(PACKAGES_install) lintian

PACKAGE_SETS := packages-build packages-run packages-install packages-lint packages-lab packages-test packages-service

.PHONY: $(PACKAGE_SETS)
$(PACKAGE_SETS): packages-%:
	@missing=; \
	for package in $(PACKAGES_$*); do \
	    [ "$$(dpkg-query --show --showformat='$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || missing+=" $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	install="apt-get install -y --no-install-recommends$$missing"; \
	if [ "$$(id -u)" != 0 ]; then echo "Missing Debian packages. As root: $$install" >&2; exit 1; fi; \
	echo "==> Installing Debian packages:$$missing"; \
	mkdir -p $(LOGS); export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -o DPkg::Lock::Timeout=300 </dev/null >$(LOGS)/apt.log 2>&1 \
	    || echo "    apt-get update failed ($(LOGS)/apt.log); trying with the package lists that are there"; \
	$$install -o DPkg::Lock::Timeout=300 </dev/null >>$(LOGS)/apt.log 2>&1 \
	    || { tail -n 30 $(LOGS)/apt.log >&2; echo "==> failed: $$install" >&2; exit 1; }

# Programs of the tests whose packages would start a service on this host: their files alone, below build/tools.
TOOLS := build/tools
export PATH := $(CURDIR)/$(TOOLS)/usr/bin:$(PATH)

FREERADIUS := $(addprefix $(TOOLS)/,freeradius freeradius-common libfreeradius3)

$(TOOLS)/%: | packages-build
	@echo '==> Unpacking the Debian package $* into $(TOOLS)'; mkdir -p $(TOOLS) $(LOGS); \
	{ cd $(TOOLS) && rm -f $*_*.deb && apt-get download $* && dpkg-deb -x $*_*.deb . && rm $*_*.deb; } \
	    </dev/null >$(LOGS)/$*.log 2>&1 || { tail -n 30 $(LOGS)/$*.log >&2; exit 1; }; touch $(CURDIR)/$@

# -- steps -----------------------------------------------------------------------------------------------------

# $(call step,what it does,log name,command): one line of progress; the output is kept, and shown when it fails.
define step
@echo '==> $(1)'; mkdir -p $(LOGS); \
{ $(3); } >$(LOGS)/$(2).log 2>&1 </dev/null || { status=$$?; tail -n 100 $(LOGS)/$(2).log; \
    echo '==> failed: $(1) (all of it: $(LOGS)/$(2).log)'; exit $$status; } >&2
endef

# $(call requirements,keys): a list of requirements in pyproject.toml, one a line; nothing is listed twice.
requirements = $(VENV)/bin/python -c 'import sys, tomllib; table = tomllib.load(open("pyproject.toml", "rb")); \
    [table := table[key] for key in sys.argv[1:]]; print(*table, sep="\n")' $(1)

PIP_INSTALL := $(VENV)/bin/pip install --no-input --disable-pip-version-check

# The virtual environment and what the build needs in it.
$(VENV)/.tools: pyproject.toml | packages-build
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("cvpnd needs Python 3.11 or newer: make PYTHON=…")'
	$(call step,Preparing the virtual environment $(VENV),venv,\
	    $(PYTHON) -m venv $$([ "$$(command -v $(PYTHON))" -ef $(VENV)/bin/python ] || echo --clear) $(VENV) \
	    && $(call requirements,build-system requires) >$(VENV)/requirements \
	    && $(PIP_INSTALL) -r $(VENV)/requirements)
	@touch $@

# Directories are listed too: a file that is gone changes its directory's time.
SOURCES := pyproject.toml $(shell find meson.build meson_options.txt meson.options cvpnd native \
    -name __pycache__ -prune -o \( -type d -o ! -name '*.so' \) -print 2>/dev/null)

$(VENV)/.cvpnd: $(VENV)/.tools $(SOURCES)
	$(call step,Building cvpnd and installing it into $(VENV),build,\
	    PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PIP_INSTALL) --no-build-isolation --config-settings=build-dir=build/wheel .)
	@touch $@

$(VENV)/.dev: $(VENV)/.tools
	$(call step,Installing the tools for tests and lint,dev,\
	    $(call requirements,project optional-dependencies dev) >$(VENV)/requirements \
	    && $(PIP_INSTALL) -r $(VENV)/requirements)
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(call step,Installing what plots,bench,\
	    $(call requirements,project optional-dependencies bench) >$(VENV)/requirements \
	    && $(PIP_INSTALL) -r $(VENV)/requirements)
	@touch $@

# $(call compiled,directory,compiler,options): a meson build of its own below build/
compiled = { test -f build/$(1)/build.ninja || CC=$(2) $(VENV)/bin/meson setup build/$(1) $(3); } \
    && $(VENV)/bin/meson compile -C build/$(1)

# -- use -------------------------------------------------------------------------------------------------------

.PHONY: help
help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: quickstart
quickstart: packages-run $(VENV)/.cvpnd ## a gateway on this host in one step: PKI, configuration, client profile (root)
	@echo '==> Certificates, a configuration for this host and a client profile in quickstart/'
	@$(VENV)/bin/cvpnd init --dir quickstart | sed '/^$$/,$$d; s/^/    /'
	@echo '==> Client profile: $(CURDIR)/quickstart/client1.ovpn'
	@echo '    Copy it to a machine that can reach this host, then:  sudo openvpn --config client1.ovpn'
	@echo '    Who is connected:  sudo $(VENV)/bin/cvpnctl --socket quickstart/admin.sock connection list'
	@echo '==> Starting the gateway; Ctrl-C ends it and leaves the host as it was'
	@exec $(VENV)/bin/cvpnd run --config quickstart/cvpnd.toml

.PHONY: demo
demo: packages-lab $(VENV)/.cvpnd $(VENV)/.dev ## client, gateway and target network on this machine, with the stock client (root)
	@exec $(VENV)/bin/python tests/demo.py

.PHONY: build
build: $(VENV)/.cvpnd ## the C module, and cvpnd installed into .venv

.PHONY: install uninstall deb
install: packages-install ## cvpnd as a service of this host: /opt/cvpnd, the unit, the commands (root)
	$(call step,Installing cvpnd into /opt/cvpnd,install,packaging/install)
	@cat systemd/README.md | sed -n '/init --dir/,/enable --now/p'

uninstall: ## takes that back; configuration, keys, state and logs stay (root)
	@packaging/uninstall

deb: packages-install ## a package for hosts of this release, in build/
	$(call step,Building the package,deb,packaging/build-deb)
	@tail -n 1 $(LOGS)/deb.log

.PHONY: connect
connect: ## cvpn-connect as one file for people's machines, in build/
	@packaging/build-connect build/cvpn-connect.pyz
	@echo '==> build/cvpn-connect.pyz, for Python 3.11 or newer:  python3 cvpn-connect.pyz PROFILE.ovpn'

# -- judge -----------------------------------------------------------------------------------------------------

.PHONY: lint
lint: packages-lint $(VENV)/.cvpnd $(VENV)/.dev ## style, types and compiler warnings
	@echo '==> ruff'
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	@echo '==> mypy --strict'
	@$(VENV)/bin/mypy --strict cvpnd
	@echo '==> clang-format'
	@find native tests/native bench -name '*.[ch]' -print0 | xargs -0 $(VENV)/bin/clang-format --dry-run -Werror
	$(call step,C with -Wall -Wextra -Werror: gcc,lint-gcc,$(call compiled,lint-gcc,gcc,--werror -Dwarning_level=2 -Dtests=true))
	$(call step,C with -Wall -Wextra -Werror: clang,lint-clang,$(call compiled,lint-clang,clang,--werror -Dwarning_level=2 -Dtests=true))
	@echo '==> lint passed'

TEST_PARTS := test-native test-fuzz test-sanitized test-python

.PHONY: test $(TEST_PARTS)
test: packages-test $(TOOLS)/prometheus $(VENV)/.cvpnd $(VENV)/.dev ## every test, the network lab with the stock client included (root)
	@if [ "$$(id -u)" != 0 ]; then echo 'The tests build network namespaces: sudo make test' >&2; exit 1; fi; \
	failed=; \
	for part in $(TEST_PARTS); do $(MAKE) $$part || failed+=" $$part"; done; \
	if [ -n "$$failed" ]; then echo "==> make test: FAILED after $$SECONDS s:$$failed"; exit 1; fi; \
	echo "==> make test: passed in $$SECONDS s"

SANITIZERS := address,undefined
SANITIZED  := --buildtype=debugoptimized -Db_sanitize=$(SANITIZERS) -Db_lundef=false \
    -Dpython.purelibdir=/site -Dpython.platlibdir=/site
SANITIZER_OPTIONS := UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ASAN_OPTIONS=detect_leaks=

test-native: $(VENV)/.tools ## C unit tests under AddressSanitizer, UBSan and ThreadSanitizer
	$(call step,Building the C tests with AddressSanitizer and UBSan,asan,$(call compiled,asan,gcc,$(SANITIZED) -Dtests=true))
	@echo '==> C unit tests'
	@$(SANITIZER_OPTIONS)1 $(VENV)/bin/meson test -C build/asan --no-rebuild --print-errorlogs
	$(call step,Building the threads with ThreadSanitizer,tsan,$(call compiled,tsan,gcc,$(subst $(SANITIZERS),thread,$(SANITIZED)) -Dtests=true))
	@# without address randomisation, which older ThreadSanitizers do not cope with on newer kernels
	@$(VENV)/bin/meson test -C build/tsan --no-rebuild --print-errorlogs --wrapper 'setarch --addr-no-randomize' workers doorman

test-fuzz: $(VENV)/.tools ## every C fuzzer for FUZZ_SECONDS (5) each
	$(call step,Building the fuzzers,fuzz,$(call compiled,fuzz,clang,$(SANITIZED) -Dfuzz=true))
	@fuzz() { \
	    name=$${1##*/}; seeds=tests/native/corpus/$$name; mkdir -p build/corpus/$$name $(LOGS); \
	    [ -d $$seeds ] || seeds=; \
	    echo "==> $$name for $(FUZZ_SECONDS) s"; \
	    $$1 -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/corpus/$$name- build/corpus/$$name $$seeds \
	        </dev/null >$(LOGS)/$$name.log 2>&1 || { tail -n 60 $(LOGS)/$$name.log >&2; return 1; }; \
	}; export -f fuzz; \
	find build/fuzz -type f -name 'fuzz_*' -executable | sort | xargs -P "$$(nproc)" -I {} bash -c 'fuzz {}'

test-sanitized: $(VENV)/.dev ## the data plane's tests on a module with AddressSanitizer and UBSan
	$(call step,Building the C module with AddressSanitizer and UBSan,asan-install,$(call compiled,asan,gcc,$(SANITIZED) -Dtests=true) \
	    && DESTDIR=$(CURDIR)/build/asan/root $(VENV)/bin/meson install -C build/asan --no-rebuild)
	@echo '==> Data plane under sanitizers'
	@$(SANITIZER_OPTIONS)0 PYTHONPATH=build/asan/root/site \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    $(VENV)/bin/pytest -q -n 2 tests/dataplane </dev/null
	@echo '==> A gateway under sanitizers, and the stock client'
	@PYTHONPATH=tests $(VENV)/bin/python tests/soak_data.py --sanitized build/asan/root/site --megabytes 20 --devices on \
	    --cipher AES-256-GCM --offload auto --backend auto openssl </dev/null

test-python: $(TOOLS)/prometheus $(TOOLS)/slapd $(FREERADIUS) $(VENV)/.cvpnd $(VENV)/.dev ## pytest alone; ARGS="tests/wire -k renegotiation" chooses
	@echo '==> pytest'
	@# twice as many as cores: most of the time, tests wait for processes and timers
	@$(VENV)/bin/pytest -n $(WORKERS) --dist worksteal --durations 25 $(ARGS) </dev/null || { status=$$?; [ $$status = 1 ] || exit $$status; \
	    echo '==> Once more, one at a time: on two cores, labs beside each other can be late'; \
	    $(VENV)/bin/pytest --last-failed --last-failed-no-failures none $(ARGS) </dev/null; }

.PHONY: matrix test-clients
matrix: packages-lab $(VENV)/.cvpnd $(VENV)/.dev ## every wrapping, cipher, transport and family with the stock client, as a table (root)
	@PYTHONPATH=tests:bench $(VENV)/bin/python -m helpers.matrix $(ARGS)

# What says something of a client, and not of our own parts only.
CLIENT_TESTS := tests/policy/test_push_real_client.py tests/wire/test_light_client.py tests/wire/test_real_client.py \
    tests/wire/test_real_client_wrappings.py $(addprefix tests/e2e/test_,$(addsuffix .py,certificates client_settings connect \
    control_protection data_ciphers devices ipv6 long_life matrix other_releases passwords proxies resolvers session_life))

test-clients: packages-test $(VENV)/.cvpnd $(VENV)/.dev ## the tests with OpenVPN clients of other Debian releases, fetched through apt (root)
	@failed=; suites=$$(PYTHONPATH=tests:bench $(VENV)/bin/python -m helpers.other_releases); \
	$(VENV)/bin/pytest tests/e2e/test_network_manager.py tests/e2e/test_resolvers.py </dev/null || failed+=" desktops"; \
	$(VENV)/bin/pytest tests/e2e/test_openvpn3.py </dev/null || failed+=" OpenVPN-3"; \
	for suite in $$suites; do \
	    echo "==> pytest with the OpenVPN of Debian $$suite"; \
	    OPENVPN_SUITE=$$suite $(VENV)/bin/pytest -n 2 $(CLIENT_TESTS) $(ARGS) </dev/null || failed+=" $$suite"; \
	done; \
	if [ -n "$$failed" ]; then echo "==> make test-clients: FAILED:$$failed"; exit 1; fi

# Installing Samba's packages would also start it on this host, and again at each boot: a policy forbids the first, and
# the services are switched off for the second.
SAMBA := samba samba-ad-dc samba-ad-provision samba-dsdb-modules samba-vfs-modules winbind krb5-user

.PHONY: test-logins
test-logins: packages-test $(TOOLS)/slapd $(FREERADIUS) $(VENV)/.cvpnd $(VENV)/.dev ## logins by the hundred and wrong ones by the thousand at OpenLDAP, a directory that hangs, minutes of new keys; fifty in the browser at once (root)
	@LOGINS=full $(VENV)/bin/pytest -rP tests/e2e/test_login_load.py tests/e2e/test_federated.py tests/e2e/test_secrets_in_memory.py \
	    tests/e2e/test_two_directories.py tests/auth/test_openldap.py $(ARGS) </dev/null

.PHONY: test-samba
test-samba: packages-test $(VENV)/.cvpnd $(VENV)/.dev ## logins at a real Active Directory controller; installs Samba, switched off (root)
	@command -v samba-tool >/dev/null || { echo '==> Installing Debian packages: $(SAMBA)'; mkdir -p $(LOGS); \
	    policy=/usr/sbin/policy-rc.d; [ -e $$policy ] || { printf '#!/bin/sh\nexit 101\n' >$$policy; chmod +x $$policy; ours=1; }; \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(SAMBA) </dev/null >$(LOGS)/samba.log 2>&1 \
	        || { tail -n 30 $(LOGS)/samba.log >&2; failed=1; }; \
	    [ -z "$${ours:-}" ] || rm $$policy; [ -z "$${failed:-}" ] || exit 1; \
	    [ ! -d /run/systemd/system ] || systemctl --quiet disable smbd nmbd winbind samba-ad-dc || true; }
	@SAMBA=full $(VENV)/bin/pytest tests/auth/test_samba_ad.py tests/e2e/test_samba_ad.py $(ARGS) </dev/null

# A Node.js that does not come from Debian brings its own npm. SimpleSAMLphp's package wants a web server, so its files
# alone are taken.
SSO := chromium $(if $(shell command -v npm),,nodejs npm) php-cli php-xml python3-lasso

.PHONY: test-sso
test-sso: packages-test $(TOOLS)/simplesamlphp $(VENV)/.cvpnd $(VENV)/.dev ## logins with Chromium at SimpleSAMLphp, samlp on Node and lasso; installs them (root)
	@dpkg-query --show $(SSO) >/dev/null 2>&1 || { echo '==> Installing Debian packages: $(SSO)'; mkdir -p $(LOGS); \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(SSO) </dev/null >$(LOGS)/sso.log 2>&1 \
	        || { tail -n 30 $(LOGS)/sso.log >&2; exit 1; }; }
	$(call step,Installing what drives the browser,playwright,\
	    $(call requirements,project optional-dependencies sso) >$(VENV)/requirements && $(PIP_INSTALL) -r $(VENV)/requirements)
	$(call step,Installing the second identity provider into build/samlp,samlp,\
	    npm install --no-audit --no-fund --prefix build/samlp samlp@8 express@4)
	@SSO=1 $(VENV)/bin/pytest tests/e2e/test_browsers.py $(ARGS) </dev/null

# Debian 12's Node 18 runs these.
SDK := $(foreach service,ec2 acm iam sts cloudwatch-logs,'@aws-sdk/client-$(service)@<3.900')

.PHONY: test-sdk
test-sdk: packages-test $(VENV)/.cvpnd $(VENV)/.dev ## the AWS SDK for JavaScript against the daemon; installs it (root)
	@command -v npm >/dev/null || { echo '==> Installing Debian packages: nodejs npm'; mkdir -p $(LOGS); \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nodejs npm </dev/null >$(LOGS)/sdk.log 2>&1 \
	        || { tail -n 30 $(LOGS)/sdk.log >&2; exit 1; }; }
	$(call step,Installing the AWS SDK for JavaScript into build/aws-sdk,aws-sdk,\
	    npm install --no-audit --no-fund --prefix build/aws-sdk $(SDK))
	@SDK=$(CURDIR)/build/aws-sdk $(VENV)/bin/pytest tests/e2e/test_javascript_sdk.py $(ARGS) </dev/null

.PHONY: test-service
test-service: packages-test packages-service $(VENV)/.cvpnd $(VENV)/.dev ## make install, the package, a newer systemd and other firewalls, each in a booted system (root)
	@TEST_SERVICE=1 $(VENV)/bin/pytest tests/systemd $(ARGS) </dev/null

.PHONY: test-paths
test-paths: packages-test $(VENV)/.cvpnd $(VENV)/.dev ## every narrow path with every transport and kind of router (root)
	@PATHS=all $(VENV)/bin/pytest tests/e2e/test_path_mtu.py </dev/null

.PHONY: fuzz fuzz-python
fuzz: FUZZ_SECONDS = 60
fuzz: packages-test test-fuzz fuzz-python ## every fuzzer for a minute each, or make fuzz FUZZ_SECONDS=600

fuzz-python: $(VENV)/.cvpnd $(VENV)/.dev ## random stories and the parsers for FUZZ_SECONDS each, and a million mutations
	@echo '==> Stories for $(FUZZ_SECONDS) s, and a million mutations of captured packets'
	@FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_MUTATIONS=1000000 $(VENV)/bin/pytest -n 2 tests/fuzz </dev/null
	@mkdir -p build/corpus/wire $(LOGS); $(call requirements,project optional-dependencies fuzz) >$(VENV)/requirements; \
	if ! $(PIP_INSTALL) -r $(VENV)/requirements >$(LOGS)/atheris.log 2>&1; then \
	    echo '==> fuzz_wire left out: no atheris for this Python ($(LOGS)/atheris.log)'; exit 0; \
	fi; \
	echo "==> fuzz_wire for $(FUZZ_SECONDS) s"; \
	PYTHONPATH=tests:bench $(VENV)/bin/python tests/fuzz/fuzz_wire.py -max_total_time=$(FUZZ_SECONDS) \
	    -artifact_prefix=build/corpus/wire- build/corpus/wire tests/fuzz/corpus/wire </dev/null >$(LOGS)/fuzz_wire.log 2>&1 \
	    || { tail -n 60 $(LOGS)/fuzz_wire.log >&2; exit 1; }

.PHONY: soak-data
soak-data: packages-test $(VENV)/.cvpnd $(VENV)/.dev ## a gigabyte each way through every offload, backend and cipher: hours (root)
	@PYTHONPATH=tests $(VENV)/bin/python tests/soak_data.py $(ARGS) </dev/null

.PHONY: soak-daemon
soak-daemon: packages-test $(VENV)/.cvpnd $(VENV)/.dev ## clients by the thousand, changes and faults for MINUTES (15), and what the daemon keeps of them (root)
	@PYTHONPATH=tests $(VENV)/bin/python tests/soak_daemon.py --minutes $${MINUTES:-15} </dev/null

.PHONY: crash
crash: packages-test $(VENV)/.cvpnd $(VENV)/.dev ## hundreds of changes beside 50 clients, thousands of rules, and CRASHES (50) kills in the middle of a change (root)
	@CRASHES=$${CRASHES:-50} CHANGING_S=$${CHANGING_S:-60} RULES=$${RULES:-10000} ROUTES=$${ROUTES:-1000} \
	    $(VENV)/bin/pytest -rP tests/e2e/test_managed.py tests/e2e/test_changes_beside_transfers.py \
	    tests/e2e/test_price_of_changes.py -k 'beside or one_by_one or killed_at_any_moment' </dev/null

.PHONY: bench
bench: packages-lab $(VENV)/.cvpnd $(VENV)/.bench ## our daemon and the stock OpenVPN server alternately, as tables and plots (root)
	$(call step,Building the micro benchmarks,release,$(call compiled,release,gcc,--buildtype=release -Dtests=true))
	@PYTHONPATH=tests:bench $(VENV)/bin/python -P -m benchmarks $(ARGS)

.PHONY: clean
clean: ## removes builds, caches and .venv; quickstart/ with its keys stays
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
