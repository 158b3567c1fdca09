"""python -m tests.fuzz SECONDS: fuzz every target for so long; what was found interesting is kept in .cache/fuzz.

`python -m tests.fuzz --keep` adds that to the repository's corpus.
"""

import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz import corpus

FOUND = Path(".cache/fuzz")


def main(seconds: int) -> int:
    """Fuzz each target in a process of its own; return how many failed."""
    from tests.fuzz.targets import TARGETS, seeds

    failed = 0
    for target in TARGETS:
        folder = FOUND / target
        write(folder, [*seeds(target), *corpus.kept(target)])
        words = FOUND / f"{target}.words"
        words.write_text(dictionary(seeds(target)), encoding="ascii")
        flags = [f"-max_total_time={seconds}", f"-artifact_prefix={FOUND}/{target}-", "-max_len=20000", "-timeout=10"]
        limits = ["-rss_limit_mb=2048", "-print_final_stats=1", f"-dict={words}", str(folder)]
        failed += libfuzzer(target, flags + limits) != 0
    return failed


def keep() -> None:
    """Add to each target's kept inputs what was found; libFuzzer has removed what a smaller input stands for."""
    from tests.fuzz.targets import TARGETS

    for target in TARGETS:
        found = [path.read_bytes() for path in sorted((FOUND / target).iterdir())]
        corpus.keep(target, corpus.kept(target) + found)


def write(folder: Path, inputs: list[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(inputs):
        (folder / f"seed-{number}").write_bytes(data)


def dictionary(inputs: list[bytes]) -> str:
    """Return the words of sound inputs and the signs between them, as libFuzzer wants them: chance finds no words."""
    found = {word for data in inputs for word in re.findall(rb'"[\w./:-]{1,60}"|\w{2,60}', data)}
    signs = {b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"-1", b"1e999", b'"":', b'{"__metadata__":'}
    return "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in sorted(found | signs))


def libfuzzer(target: str, flags: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", "tests.fuzz", "--target", target, *flags], check=False).returncode


def fuzz(target: str, flags: list[str]) -> None:
    """Hand this process over to libFuzzer."""
    import atheris

    with atheris.instrument_imports(include=["exchange", "json", "tomllib"]):
        from tests.fuzz.targets import TARGETS

    atheris.Setup([sys.argv[0], *flags], lambda data: TARGETS[target](bytes(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    match sys.argv[1]:
        case "--target":
            fuzz(sys.argv[2], sys.argv[3:])
        case "--keep":
            keep()
        case seconds:
            sys.exit(main(int(seconds)))
