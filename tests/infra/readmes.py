"""Writes into every module's README what its code says: `python -m tests.infra.readmes`.

Between `<!-- example FILE module.NAME -->` and `<!-- /example -->` comes that block of a file under `infra/`, between
`<!-- inputs -->`, `<!-- outputs -->` and their ends a table each. All else is written by hand.
"""

import re
import textwrap
from pathlib import Path

from tests.infra.terraform import INFRA, MODULES, blocks, text_of


def rendered(module: Path, text: str) -> str:
    """Return the README `text` of a module with everything between marks made anew."""
    text = re.sub(
        r"(<!-- example (\S+) module\.(\S+) -->\n).*?(<!-- /example -->)",
        lambda found: f"{found[1]}```hcl\n{_block(found[2], found[3])}\n```\n{found[4]}",
        text,
        flags=re.DOTALL,
    )
    for mark, rows in (("inputs", _inputs(module)), ("outputs", _outputs(module))):
        text = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)",
            lambda found, rows=rows: f"{found[1]}{rows}\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
    return text


def _inputs(module: Path) -> str:
    lines = ["| input | type | default | meaning |", "|---|---|---|---|"]
    variables = blocks(module, "variable")
    source = (module / "variables.tf").read_text(encoding="utf-8")
    for name, variable in variables.items():
        default = _source(source, name, "default")
        kind = re.sub(r"{.*}", "{…}", _source(source, name, "type") or "any")
        shown = "required" if default is None else f"`{default}`"
        lines.append(f"| `{name}` | `{kind}` | {shown} | {_cell(text_of(variable['description']))} |")
    return "\n".join(lines)


def _outputs(module: Path) -> str:
    lines = ["| output | meaning |", "|---|---|"]
    outputs = blocks(module, "output")
    lines += [f"| `{name}` | {_cell(text_of(output['description']))} |" for name, output in outputs.items()]
    return "\n".join(lines)


def _source(text: str, variable: str, attribute: str) -> str | None:
    """Return an attribute of a variable as it is written; None if it has none."""
    body = re.search(rf'^variable "{variable}" {{$(.*?)^}}$', text, re.MULTILINE | re.DOTALL)
    assert body is not None, variable
    found = re.search(rf"^  {attribute} += (.*?)(?=\n  \w|\n$|\Z)", body[1], re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else None


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _block(file: str, name: str) -> str:
    text = (INFRA / file).read_text(encoding="utf-8")
    found = re.search(rf'^module "{name}" {{$.*?^}}$', text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{file} has no module {name!r}"
    return textwrap.dedent(found[0])


def main() -> None:
    for module in MODULES:
        readme = module / "README.md"
        readme.write_text(rendered(module, readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
