# One command for everything, the same in CI. Bare `make` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup demo run check test test-services fuzz bench bench-imports bench-lists bench-writers docs lock clean
MAKEFLAGS += --no-print-directory

bin := .venv/bin
ready := .venv/.ready

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 — \2/p' Makefile | sed 's/^  make \([a-z-]*\) — /  make \1\t/' | expand -t 22

setup: $(ready) ## make .venv with everything that is needed, and install qemu-utils, bubblewrap and zstd
	@bash scripts/system-packages.sh qemu-img:qemu-utils bwrap:bubblewrap zstd:zstd

$(ready): requirements.lock pyproject.toml scripts/setup.sh
	@bash scripts/setup.sh
	@touch $(ready)

demo: setup ## show the main job on a real disk image, in a service that is started for it
	@$(bin)/calotype demo

run: setup ## start the service in ./data, until Ctrl-C
	@$(bin)/calotype serve --data-dir data

check: $(ready) ## format, lint and types
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy

test: setup ## the tests
	@bash scripts/system-packages.sh curl:curl "test -x /usr/sbin/mkfs.ext4":e2fsprogs \
	  "test -x /usr/sbin/mkfs.xfs":xfsprogs "test -x /bin/mkfs.btrfs -o -x /usr/sbin/mkfs.btrfs":btrfs-progs \
	  "test -x /usr/sbin/mkntfs":ntfs-3g "test -x /usr/sbin/makefs":makefs mformat:mtools wimapply:wimtools
	$(bin)/pytest -n 2 --dist worksteal -m "not services"

test-services: setup ## the tests that want a real PostgreSQL or libvirt, or that boot disks
	@bash scripts/system-packages.sh virsh:libvirt-clients "test -x /usr/sbin/libvirtd":libvirt-daemon \
	  "ls /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so":libvirt-daemon-driver-qemu \
	  radosgw:radosgw ceph-mon:ceph-mon ceph-osd:ceph-osd ceph:ceph-common curl:curl \
	  qemu-system-x86_64:qemu-system-x86 strace:strace "test -x /usr/sbin/resize2fs":e2fsprogs grub-mkimage:grub-common \
	  "test -f /usr/lib/grub/i386-pc/boot.img":grub-pc-bin \
	  "test -f /usr/lib/grub-rescue/grub-rescue-cdrom.iso":grub-rescue-pc
	@CALOTYPE_EXAMPLES=$${CALOTYPE_EXAMPLES:-10} bash scripts/with-postgresql.sh $(bin)/pytest -n 2 --dist worksteal -m services

fuzz: setup ## every parser of hostile input, for FUZZ_SECONDS each (60); installs atheris into fuzz/.packages
	@bash fuzz/run.sh

bench: setup ## the measurements
	@$(bin)/python -m bench

bench-lists: setup ## lists of 25 from a thousand and from a million images
	@$(bin)/python -m bench.lists

bench-imports: setup ## imports with conversion, by the service and by the bare tool
	@$(bin)/python -m bench.imports

bench-writers: setup ## compressed exports by our own writers and by qemu-img
	@$(bin)/python -m bench.writers

docs: $(ready) ## write the generated parts of docs/reference, then check links and that nothing is left out
	@$(bin)/python scripts/docs_reference.py
	@$(bin)/python scripts/check_docs.py

lock: ## renew requirements.lock
	@bash scripts/lock.sh

clean: ## remove .venv and what tools left; ./data stays
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis fuzz/.packages fuzz/logs
	find src tests bench fuzz scripts -name __pycache__ -prune -exec rm -rf {} +
