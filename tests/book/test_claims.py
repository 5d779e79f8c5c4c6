"""The ledger of claims: complete, well-formed, honest about what has been run."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pybtex.database import parse_file

ROOT = Path(__file__).parents[2]
CHOICES = {
    "kind": {"math", "empirical", "historical", "numerical"},
    "verdict": {"true", "conditions", "false", "misleading", "unverifiable"},
    "tier": {1, 2, 3},
    "flag": {True, False},
    "chapter": set(range(1, 12)),
    "status": {"cited", "to run", "run"},
}
TEXTS = {"report", "survey", "showdown", "theory", "averaging"}
FIELDS = {*CHOICES, "id", "text", "who", "why", "source", "test", "evidence"}


def evidence_exists(evidence: str) -> bool:
    """Whether a result key ("05/fd_ar") or a test ("tests/a.py::test_b") is there."""
    if match := re.fullmatch(r"(tests/\S+\.py)::(test_\w+)", evidence):
        path = ROOT / match[1]
        return path.is_file() and f"def {match[2]}(" in path.read_text(encoding="utf-8")
    if match := re.fullmatch(r"(\w+)/(\w+)", evidence):
        shown = f"{match[0]} = "  # `record` prints the key, so the committed outputs hold it
        notebooks = (ROOT / "notebooks").glob(f"{match[1]}_*.ipynb")
        if any(shown in path.read_text(encoding="utf-8") for path in notebooks):
            return True
        path = ROOT / "ddpm_lite" / "results" / f"{match[1]}.json"
        return path.is_file() and match[2] in json.loads(path.read_text(encoding="utf-8"))
    return False


def problems(claims: list[dict[str, Any]], keys: set[str]) -> list[str]:
    """One line for each thing that is wrong with the ledger; keys are those of the bibliography."""
    found = []
    ids = [claim.get("id") for claim in claims]
    if ids != [f"C{n:02d}" for n in range(1, 146)]:
        found.append("ids are not C01 ... C145 in order, once each")
    for claim in claims:
        name = claim.get("id")
        if set(claim) != FIELDS:
            found.append(f"{name}: fields differ by {set(claim) ^ FIELDS}")
            continue
        for field, allowed in CHOICES.items():
            # `1 == True`, so the type is compared too
            if not any(claim[field] == a and type(claim[field]) is type(a) for a in allowed):
                found.append(f"{name}: {field} is {claim[field]!r}")
        if not claim["who"] or not set(claim["who"]) <= TEXTS:
            found.append(f"{name}: who is {claim['who']}")
        for field in ("text", "why"):
            if not isinstance(claim[field], str) or not claim[field].strip():
                found.append(f"{name}: {field} is empty")
        parts = str(claim["text"]).split('"')
        if len(parts) % 2 == 0:
            found.append(f"{name}: a quotation is not closed")
        if sum(len(quoted.split()) for quoted in parts[1::2]) > 10:
            found.append(f"{name}: quotes more than ten words")
        if not claim["source"]:
            found.append(f"{name}: no source")
        for source in claim["source"]:
            if source not in keys and not re.match(r"cite: \S", source):
                found.append(f"{name}: source {source!r} is not in references.bib")
        if claim["status"] == "cited" and claim["test"] is not None:
            found.append(f"{name}: has a test but is only cited")
        if claim["status"] != "cited" and not claim["test"]:
            found.append(f"{name}: is {claim['status']} without a test")
        if claim["status"] == "run" and not evidence_exists(str(claim["evidence"])):
            found.append(f"{name}: evidence {claim['evidence']!r} does not exist")
        if claim["status"] != "run" and claim["evidence"] is not None:
            found.append(f"{name}: evidence of something that has not run")
        if claim["tier"] in (1, 2) and claim["status"] == "cited":
            found.append(f"{name}: tier {claim['tier']} needs a test")
    return found


@pytest.fixture(scope="module")
def keys() -> set[str]:
    return set(parse_file(str(ROOT / "book" / "references.bib")).entries)


@pytest.fixture(scope="module")
def claims() -> list[dict[str, Any]]:
    return yaml.safe_load((ROOT / "book" / "claims.yml").read_text(encoding="utf-8"))


def test_ledger_is_sound(claims: list[dict[str, Any]], keys: set[str]) -> None:
    assert problems(claims, keys) == []


def test_some_claims_survive_and_some_do_not(claims: list[dict[str, Any]]) -> None:
    assert {claim["verdict"] for claim in claims} == CHOICES["verdict"]
    assert {who for claim in claims for who in claim["who"]} == TEXTS


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("id", "C02", "once each"),
        ("verdict", True, "verdict is True"),
        ("tier", True, "tier is True"),
        ("flag", 0, "flag is 0"),
        ("chapter", 12, "chapter is 12"),
        ("who", ["nobody"], "who is"),
        ("text", "", "text is empty"),
        ("text", 'he says "no', "not closed"),
        ("text", '"one two three four five six seven eight nine ten eleven"', "ten words"),
        ("text", '"one two three four five six" and "seven eight nine ten eleven"', "ten words"),
        ("source", [], "no source"),
        ("source", ["nobody2020nothing"], "references.bib"),
        ("status", "cited", "only cited"),
        ("status", "run", "does not exist"),
        ("test", None, "without a test"),
        ("evidence", "01/bpd", "has not run"),
    ],
)
def test_a_planted_fault_is_found(
    claims: list[dict[str, Any]], keys: set[str], field: str, value: Any, complaint: str
) -> None:
    planted = copy.deepcopy(claims)
    # A claim still "to run", whatever the ledger says of it by now: the plants start from there.
    planted[0].update(status="to run", test="a test", evidence=None)
    assert problems(planted, keys) == []
    planted[0][field] = value
    assert any(complaint in line for line in problems(planted, keys))


def test_evidence_must_be_there() -> None:
    here = "tests/book/test_claims.py"
    assert evidence_exists(f"{here}::test_evidence_must_be_there")
    assert not evidence_exists(f"{here}::test_that_nobody_wrote")
    assert not evidence_exists("tests/book/no_such_file.py::test_ledger_is_sound")
    assert not evidence_exists("99/nothing")
    assert not evidence_exists("we are sure")


def test_bibliography_has_each_work_once(keys: set[str]) -> None:
    entries = parse_file(str(ROOT / "book" / "references.bib")).entries
    for field in ("eprint", "title"):
        values = [e.fields[field].lower() for e in entries.values() if field in e.fields]
        assert len(values) == len(set(values))
    for key, entry in entries.items():
        assert re.fullmatch(r"[a-z]+(1[89]|20)\d\d[a-z0-9]+", key), key
        assert entry.fields["year"] in key
        # Four digits after the point until 2014, five since.
        eprint = entry.fields.get("eprint", "1501.00001")
        assert re.fullmatch(r"(0[7-9]|1[0-4])\d\d\.\d{4}|(1[5-9]|2\d)\d\d\.\d{5}", eprint), key
