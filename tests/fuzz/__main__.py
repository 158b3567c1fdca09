"""python -m tests.fuzz SECONDS: fuzz every target for so long; what was found interesting is kept in .cache/fuzz."""

import subprocess
import sys
from pathlib import Path

FOUND = Path(".cache/fuzz")


def main(seconds: int) -> int:
    """Fuzz each target in a process of its own; return how many failed."""
    from tests.fuzz.targets import TARGETS, seeds

    failed = 0
    for target in TARGETS:
        corpus = FOUND / target
        corpus.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(seeds(target)):
            (corpus / f"seed-{number}").write_bytes(data)
        flags = [f"-max_total_time={seconds}", f"-artifact_prefix={FOUND}/{target}-", "-max_len=20000", "-timeout=10"]
        limits = ["-rss_limit_mb=2048", "-print_final_stats=1", str(corpus)]
        done = subprocess.run([sys.executable, "-m", "tests.fuzz", "--target", target, *flags, *limits], check=False)
        failed += done.returncode != 0
    return failed


def fuzz(target: str, flags: list[str]) -> None:
    """Hand this process over to libFuzzer."""
    import atheris

    with atheris.instrument_imports(include=["exchange", "json", "tomllib"]):
        from tests.fuzz.targets import TARGETS

    atheris.Setup([sys.argv[0], *flags], lambda data: TARGETS[target](bytes(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1] == "--target":
        fuzz(sys.argv[2], sys.argv[3:])
    sys.exit(main(int(sys.argv[1])))
