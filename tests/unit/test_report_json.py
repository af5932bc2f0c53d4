# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from tests import reports
from vmcheck.check import Report
from vmcheck.facts.body import Body
from vmcheck.facts.data import members
from vmcheck.facts.diagnosis import Diagnosis
from vmcheck.facts.findings import Severity
from vmcheck.facts.topology import Topology
from vmcheck.report.document import IN_FINDINGS, NOT_OF_THE_KERNEL, to_json

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"


@pytest.mark.parametrize("report", reports.every())
def test_documents_are_valid_against_the_schema(report: Report) -> None:
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_bytes())).validate(json.loads(to_json(report)))


def test_the_schema_refuses_a_member_it_does_not_know() -> None:
    document = json.loads(to_json(reports.WHOLE)) | {"verdikt": "complete"}
    with pytest.raises(jsonschema.ValidationError, match="verdikt"):
        jsonschema.validate(document, json.loads(SCHEMA.read_bytes()))


def test_a_lost_dimm_and_cpu_as_a_machine_reads_them() -> None:
    document = json.loads(to_json(reports.ADDED))
    assert document["verdict"] == "incomplete"
    assert document["exit_status"] == 1
    assert document["dump"]["file"] == "vmcore"
    assert document["memory"] == {
        "system_ram": 670531584,
        "described": 334340096,
        "stored": 66060288,
        "filtered": 268279808,
        "excluded": 201973760,
        "missing": 134217728,
        "dropped": 0,
        "phantom": 0,
        "elsewhere": 0,
        "undescribed": 0,
    }
    assert document["findings"][0] == {
        "rule": "undescribed-ram",
        "severity": "lost",
        "summary": "System RAM added after elfcorehdr was written, in no PT_LOAD segment",
        "ranges": [[0x100000000, 0x108000000]],
        "bytes": 0x8000000,
        "cpus": [],
        "evidence": list(reports.LOST_DIMM.evidence),
        "recoverable": False,
    }


def test_every_fact_of_a_value_is_in_the_document_by_its_type() -> None:
    """A new field of these needs no line in document.py."""
    document = json.loads(to_json(replace(reports.DIAGNOSED, body=Body(pages=9, unpacked=9))))
    names = {
        "kernel": {each.name for each in members(Topology)} - NOT_OF_THE_KERNEL,
        "body": {each.name for each in members(Body)} - IN_FINDINGS | {"would_have_seen"},
        "diagnosis": {each.name for each in members(Diagnosis)},
    }
    assert {name: document[name].keys() for name in names} == names


def test_what_is_unknown_is_null_and_listed_with_its_reason() -> None:
    document = json.loads(to_json(reports.BLIND))
    assert document["kernel"]["online_cpus"] is None
    assert {"fact": "online_cpus", "why": "no symbol named __cpu_online_mask"} in document["unknown"]
    assert document["exit_status"] == 4


def test_a_diagnosis_is_there_where_it_concludes_something() -> None:
    assert "diagnosis" not in json.loads(to_json(reports.ADDED))
    document = json.loads(to_json(reports.DIAGNOSED))["diagnosis"]
    assert document["regime"] == {
        "name": "reload-by-udev",
        "text": "a udev rule reloads the crash kernel after each change",
        "certainty": "likely",
        "evidence": ["kexec_crash_image.file_mode is 0: the header was made by kexec-tools"],
        "rules": [],
    }
    assert document["timeline"]["events"][1] == {
        "text": "the crash kernel was loaded",
        "seconds": None,
        "not_before": 3.5,
        "not_after": 41.2,
    }
    assert document["next_dump"] == [
        {
            "text": "load the crash kernel with the kernel's own loader",
            "commands": ["kexec -s -p /boot/vmlinuz"],
        }
    ]


def test_the_exit_status_in_the_document_follows_fail_on() -> None:
    statuses = [json.loads(to_json(reports.PHANTOM, severity))["exit_status"] for severity in Severity]
    assert statuses == [0, 1, 1]


def test_the_same_report_gives_the_same_bytes() -> None:
    assert to_json(reports.huge()) == to_json(reports.huge())


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq here")
def test_the_jq_examples_in_the_docs_print_what_the_docs_say(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(to_json(reports.ADDED))
    docs = (SCHEMA.parent / "json.md").read_text()
    examples = re.findall(r"```sh\n(jq [^`]*)```\n+```\n([^`]*)```", docs)
    assert len(examples) == 1
    for command, output in examples:
        assert subprocess.check_output(["sh", "-c", command], cwd=tmp_path, text=True) == output
