# From a bare machine (python3, pip, make, a C++ compiler and Python's headers, which apt installs
# where you are root) to a running demo or test suite.
#
#   make demo                     two tasks on the simulated robot, over ROS 2; leaves demo_output/
#   make test [DISTRO=kilted]     the test suite, on Jazzy (the default) or Kilted
#   make lint                     ruff and mypy on the package, its tests and the tools
#   make docs                     the documents as a site, in site/; broken links fail it
#   make install [DISTRO=kilted]  only the set-up: the virtual environment with the package in it
#   make clean                    remove what was built; `make clean-all` the environments too
#
# Everything goes into .venv (.venv-kilted) in this folder; only a compiler, Python's headers and a
# library that draws without a screen come from apt. On a machine with ROS 2, none of this is
# needed: there `colcon build`, `colcon test` and `ros2 launch` do the same jobs.

DISTRO ?= jazzy
ifeq ($(filter $(DISTRO),jazzy kilted),)
$(error DISTRO is '$(DISTRO)'; expected jazzy or kilted)
endif
VENV := $(if $(filter jazzy,$(DISTRO)),.venv,.venv-$(DISTRO))
STAMPS := $(VENV)/stamps
LOG := $(VENV)/set-up.log
# Processes that run the tests. Most tests wait for real time and for other processes, so that
# three use two cores well. They take whole files in the order that test/conftest.py gives.
WORKERS ?= 3
PINS := constraints/common.txt constraints/$(DISTRO).txt

ifneq ($(words $(CURDIR)),1)
$(error the path '$(CURDIR)' has a space in it, from where Python scripts cannot start)
endif

# The ROS wheels are built for these versions of Python, and the pins hold on them.
PYTHON ?= $(firstword $(foreach name,python3 python3.12 python3.11,$(shell \
  $(name) -c 'import sys; print("$(name)" if (3, 11) <= sys.version_info[:2] <= (3, 12) else "")' \
  2>/dev/null)))

PIP := $(VENV)/bin/pip --disable-pip-version-check --no-input
QUIETLY := --quiet --no-compile --progress-bar off
PACKAGE_FILES := $(sort $(shell find lingbot_va_ros launch config urdf models msg srv action \
  cmake -type f -not -name '*.pyc' 2>/dev/null) CMakeLists.txt package.xml requirements.txt setup.py)

# A sourced ROS 2, or another environment, must not show through in this one.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH LD_LIBRARY_PATH
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
# Dozens of processes import PyTorch and rclpy; without compiled modules each takes a second more.
unexport PYTHONDONTWRITEBYTECODE

comma := ,
# One line for each step; what it prints goes to the log, of which a failure shows the end.
say = @printf '[set-up] %s\n' '$(1)'
logged = >> $(LOG) 2>&1 || { tail -n 15 $(LOG); \
  echo 'set-up failed at: $(1) (whole log: $(LOG))'; exit 1; } >&2

DOCS := .venv-docs

.PHONY: demo test lint docs install clean clean-all FORCE
.NOTPARALLEL:
.DELETE_ON_ERROR:

demo: install
	@$(VENV)/bin/lingbot_va demo $(ARGS)

test: install
	@$(VENV)/bin/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# mypy reads the libraries' types, but neither tool needs the package to be installed.
lint: $(STAMPS)/lint
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy

# In an environment of its own: the site needs none of the package, and the package none of this.
docs: $(DOCS)/stamp
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict

$(DOCS)/stamp: LOG := $(DOCS)/set-up.log
$(DOCS)/stamp: constraints/docs.txt tools/make_environment.sh
	$(call say,MkDocs)
	@mkdir -p $(DOCS)
	@tools/make_environment.sh $(PYTHON) $(DOCS) $(call logged,virtual environment)
	@$(DOCS)/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
	  --progress-bar off --no-deps -r constraints/docs.txt $(call logged,MkDocs)
	@touch $@

install: $(STAMPS)/package

# Scripts in an environment hold its path: it is made anew where the folder has moved.
$(STAMPS)/place: FORCE
	@if [ -f $@ ] && [ "$$(cat $@)" != '$(CURDIR)' ]; then rm -rf $(VENV); fi
	@[ -f $@ ] || { mkdir -p $(STAMPS) && echo '$(CURDIR)' > $@; }

$(STAMPS)/environment: tools/make_environment.sh $(STAMPS)/place
	$(if $(PYTHON),,@echo 'no Python 3.11 or 3.12 found; install one (apt-get install python3.12) \
	or name it: make PYTHON=/path/to/python3.12' >&2; exit 1)
	$(call say,virtual environment $(VENV))
	@tools/make_environment.sh $(PYTHON) $(VENV) $(call logged,virtual environment)
	@touch $@

$(STAMPS)/system: tools/system_packages.sh $(STAMPS)/environment
	$(call say,system packages)
	@tools/system_packages.sh $(VENV)/bin/python $(call logged,system packages)
	@touch $@

# PyTorch is as much work as all others together: the two go on at the same time.
$(STAMPS)/wheels: $(PINS) constraints/torch.txt tools/patch_wheels.py $(STAMPS)/system
	$(call say,PyTorch$(comma) ROS 2 $(DISTRO) and libraries)
	@{ $(PIP) install $(QUIETLY) -r constraints/torch.txt & pytorch=$$!; \
	  $(PIP) install $(QUIETLY) --no-deps $(foreach file,$(PINS),-r $(file)); others=$$?; \
	  wait $$pytorch && [ $$others = 0 ]; } $(call logged,PyTorch$(comma) ROS 2 and libraries)
	@$(VENV)/bin/python tools/patch_wheels.py $(call logged,patching the wheels)
	@touch $@

$(STAMPS)/lint: constraints/lint.txt $(STAMPS)/wheels
	$(call say,linters)
	@$(PIP) install $(QUIETLY) --no-deps -r constraints/lint.txt $(call logged,linters)
	@touch $@

# Changes when a file appears or goes, which no file's own time tells.
$(STAMPS)/files: FORCE $(STAMPS)/place
	@printf '%s\n' $(PACKAGE_FILES) | cmp -s - $@ || printf '%s\n' $(PACKAGE_FILES) > $@

$(STAMPS)/package: $(STAMPS)/wheels $(STAMPS)/files $(PACKAGE_FILES)
	$(call say,lingbot_va_ros)
	@touch $@.begun
	@[ $(STAMPS)/compiled -nt $(STAMPS)/wheels ] || \
	  { tools/compile_libraries.sh $(VENV)/bin/python; touch $(STAMPS)/compiled; } & \
	  $(PIP) install --quiet --no-build-isolation --no-deps --no-index --force-reinstall . \
	  $(call logged,lingbot_va_ros); wait
	@mv $@.begun $@

clean:
	rm -rf build install log site demo_output *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find lingbot_va_ros launch test tools -name __pycache__ -prune -exec rm -rf {} +

clean-all: clean
	rm -rf .venv .venv-*
