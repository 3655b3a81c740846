"""What the gate lets pass, QEMU sees as the gate does: sound files of every format, bent by chance, that are taken."""

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Final

import pytest
from fuzz.mutation import applied, drawn
from fuzz.seeds import SOUND
from fuzz.sparse import encoded
from fuzz.targets import MOST_VIRTUAL, REPAIR, file_of

from calotype.disks import gate
from calotype.disks.convert import named_for_qemu
from calotype.disks.sandbox import inside
from calotype.errors import DiskRefused
from tests.disks import build

FORMATS: Final = sorted(SOUND.keys() - {"iso"})  # QEMU has no word for it: it is a raw disk
TRIES: Final = int(os.environ.get("CALOTYPE_BENT_FILES", "12"))  # of each sound file


@pytest.mark.parametrize("format_", FORMATS)
def test_what_the_gate_takes_of_bent_files_has_the_same_size_for_qemu(format_: str, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    taken = 0
    for content in SOUND[format_]():
        sound = bytes([REPAIR]) + encoded(content, without=build.CONTENT)
        for number in range(TRIES):
            data = applied(sound, drawn(random.Random(number))) if number else sound
            read_at, size = file_of(data)
            try:
                found = gate.inspect_at(read_at, size, declared=format_, most_virtual_bytes=MOST_VIRTUAL)
            except DiskRefused:
                assert number, "a sound file is refused"
                continue
            path.write_bytes(read_at(0, size))
            named = named_for_qemu(path, found.format, 0).replace(inside(0), str(path))
            told = subprocess.run(["qemu-img", "info", "--output=json", named], check=False, capture_output=True)
            assert told.returncode == 0, (number, told.stderr)
            assert json.loads(told.stdout)["virtual-size"] == found.virtual_size, (number, found)
            taken += 1

    assert taken >= len(SOUND[format_]())
