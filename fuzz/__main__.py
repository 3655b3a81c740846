"""Fuzz one target with atheris: `python -m fuzz TARGET SECONDS`; without arguments the targets are listed.

What is found is written to fuzz/findings, as an input. What was interesting is kept in fuzz/corpus, to go on from.
"""

import contextlib
import hashlib
import random
import sys
from pathlib import Path
from typing import Final

try:
    import atheris
except ImportError:
    sys.exit("fuzz: atheris is not there; `make fuzz` installs it where there is a wheel for the machine")

with atheris.instrument_imports(include=["calotype.disks", "calotype.servers"]):
    from fuzz.targets import TARGETS

from fuzz.mutation import applied, drawn
from fuzz.seeds import seeds_of

HERE: Final = Path(__file__).parent
MOST_MEMORY_MB: Final = 512
MOST_SECONDS: Final = 10  # of one input


def mutated(data: bytes, most_bytes: int, seed: int) -> bytes:
    """Half as libFuzzer would, half as numbers in a file are bent."""
    source = random.Random(seed)
    if source.random() < 0.5:
        changed: bytes = atheris.Mutate(data, most_bytes)
        return changed
    return applied(data, drawn(source))[:most_bytes]


def main(name: str, seconds: int) -> None:
    target = TARGETS[name]
    corpus, findings = HERE / "corpus" / name, HERE / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    for seed in seeds_of(name):
        with contextlib.suppress(FileExistsError):
            (corpus / hashlib.sha256(seed).hexdigest()[:40]).open("xb").write(seed)
    options = {
        "max_total_time": seconds,
        "timeout": MOST_SECONDS,
        "rss_limit_mb": MOST_MEMORY_MB,
        "max_len": target.most_bytes,
        "artifact_prefix": f"{findings}/{name}-",
        "print_final_stats": 1,
        "verbosity": 1,
    }
    arguments = [sys.argv[0], *(f"-{option}={value}" for option, value in options.items()), str(corpus)]
    atheris.Setup(arguments, target, custom_mutator=mutated)
    atheris.Fuzz()


if len(sys.argv) == 3 and sys.argv[1] in TARGETS and sys.argv[2].isdigit():
    main(sys.argv[1], int(sys.argv[2]))
else:
    print("\n".join(TARGETS))
    sys.exit(2 if len(sys.argv) > 1 else 0)
