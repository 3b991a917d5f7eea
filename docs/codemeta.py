"""Write `codemeta.json`, which catalogues of software read, from `pyproject.toml`: `python docs/codemeta.py`."""

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/etc-bench/etc-bench"


def codemeta() -> str:
    """The text of the file: JSON-LD of CodeMeta 3.0."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = re.search(r'^__version__ = "(.+)"$', (ROOT / "bench" / "__init__.py").read_text(), re.M)
    author = re.search(r"^  - name: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert version is not None and author is not None
    content = {
        "@context": "https://w3id.org/codemeta/3.0",
        "@type": "SoftwareSourceCode",
        "name": project["name"],
        "description": project["description"],
        "version": version[1],
        "license": f"https://spdx.org/licenses/{project['license']}",
        "author": [{"@type": "Organization", "name": author[1]}],
        "codeRepository": REPOSITORY,
        "issueTracker": f"{REPOSITORY}/issues",
        "readme": f"{REPOSITORY}/blob/main/README.md",
        "programmingLanguage": {"@type": "ComputerLanguage", "name": "Python"},
        "runtimePlatform": f"Python {project['requires-python']}",
        "softwareRequirements": [_requirement(one) for one in project["dependencies"]],
    }
    return json.dumps(content, indent=1) + "\n"


def _requirement(text: str) -> dict[str, str]:
    """A requirement of the package as CodeMeta has it."""
    name = re.match(r"[\w.-]+", text)
    assert name is not None
    version = text[name.end() :]
    return {"@type": "SoftwareApplication", "name": name[0]} | ({"version": version} if version else {})


if __name__ == "__main__":
    (ROOT / "codemeta.json").write_text(codemeta(), encoding="utf-8")
