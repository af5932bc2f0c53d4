# SPDX-License-Identifier: LGPL-2.1-or-later
"""The results of scans in one SQLite file: a row a dump, each committed as it comes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, fields
from types import TracebackType

from vmcheck.errors import VmcheckError
from vmcheck.facts.fleet import Identity, Row

SCHEMA = 1
"""PRAGMA user_version. Raised when a reader of the table would break."""

_IDENTITY = [field.name for field in fields(Identity)]
_ANSWERS = [field.name for field in fields(Row) if field.name != "identity"]
_COLUMNS = [*_IDENTITY, *_ANSWERS, "first_scan", "last_scan"]

_CREATE = """
CREATE TABLE IF NOT EXISTS scans (
    scan INTEGER PRIMARY KEY,
    started INTEGER NOT NULL, -- seconds since the epoch
    finished INTEGER,         -- null: still running, or killed
    vmcheck TEXT NOT NULL,
    sources TEXT NOT NULL     -- JSON
);
CREATE TABLE IF NOT EXISTS dumps (
    path TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    head TEXT NOT NULL,
    parts INTEGER NOT NULL,
    vmcheck TEXT NOT NULL,
    verdict TEXT NOT NULL,
    answer TEXT NOT NULL,
    exit_status INTEGER NOT NULL,
    missing INTEGER NOT NULL, -- bytes
    ranges TEXT NOT NULL,     -- JSON: [[start, end], ...], the end is the first byte after
    cpus TEXT NOT NULL,       -- JSON
    kernel TEXT NOT NULL,
    build_id TEXT NOT NULL,
    machine TEXT NOT NULL,
    host TEXT NOT NULL,
    regime TEXT NOT NULL,
    cause TEXT NOT NULL,
    certainty TEXT NOT NULL,
    crash_time INTEGER,       -- seconds since the epoch
    seconds REAL NOT NULL,
    report TEXT NOT NULL,     -- the JSON report
    first_scan INTEGER NOT NULL REFERENCES scans,
    last_scan INTEGER NOT NULL REFERENCES scans
);
"""


class Store:
    """An open store. In memory where no file is named."""

    def __init__(self, path: str | None = None) -> None:
        """Raises VmcheckError where the file is not a store, or of a newer vmcheck."""
        self._path = path or ":memory:"
        self._scan = 0
        try:
            self._database = sqlite3.connect(self._path, isolation_level=None)
            self._version = int(self._database.execute("PRAGMA user_version").fetchone()[0])
            if self._version > SCHEMA:
                raise VmcheckError(
                    f"{path}: a store of schema {self._version}, and this vmcheck knows {SCHEMA}"
                )
            if (
                not self._version
                and self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            ):
                raise VmcheckError(f"{path}: an SQLite file, and not a store of vmcheck scan")
            # A scan that is killed loses at most the row being written.
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(_CREATE)
            self._database.execute(f"PRAGMA user_version = {SCHEMA}")
        except sqlite3.Error as error:
            raise VmcheckError(f"{path}: not a store that can be used: {error}") from None

    def begin(self, sources: list[str], version: str, now: int) -> None:
        """A scan begins; ``now`` is in seconds since the epoch."""
        self._scan = int(
            self._run(
                "INSERT INTO scans (started, vmcheck, sources) VALUES (?, ?, ?) RETURNING scan",
                (now, version, json.dumps(sources)),
            ).fetchone()[0]
        )

    def finish(self, now: int) -> None:
        self._run("UPDATE scans SET finished = ? WHERE scan = ?", (now, self._scan))

    def known(self, identity: Identity, version: str) -> Row | None:
        """What was said of this very dump by this very version, and marks it as seen by this scan."""
        conditions = " AND ".join(f"{name} = ?" for name in [*_IDENTITY, "vmcheck"])
        found = self._run(
            f"SELECT {', '.join(_ANSWERS)} FROM dumps WHERE {conditions}", (*astuple(identity), version)
        ).fetchone()
        if found is None:
            return None
        self._run("UPDATE dumps SET last_scan = ? WHERE path = ?", (self._scan, identity.path))
        return _row(identity, found)

    def put(self, row: Row) -> None:
        values = {name: getattr(row, name) for name in _ANSWERS}
        values |= {name: json.dumps(values[name]) for name in ("ranges", "cpus")}
        first = self._run("SELECT first_scan FROM dumps WHERE path = ?", (row.identity.path,)).fetchone()
        places = ", ".join("?" * len(_COLUMNS))
        self._run(
            f"INSERT OR REPLACE INTO dumps ({', '.join(_COLUMNS)}) VALUES ({places})",
            (*astuple(row.identity), *values.values(), first[0] if first else self._scan, self._scan),
        )

    def rows(self, report: bool = True) -> Iterator[tuple[Row, bool]]:
        """The rows of this scan by path, and whether each is new in it. Without ``report``, that is empty."""
        answers = [name if name != "report" or report else "''" for name in _ANSWERS]
        for found in self._run(
            f"SELECT {', '.join(_IDENTITY)}, {', '.join(answers)}, first_scan = ?1 FROM dumps "
            "WHERE last_scan = ?1 ORDER BY path",
            (self._scan,),
        ):
            identity = Identity(*found[: len(_IDENTITY)])
            yield _row(identity, found[len(_IDENTITY) : -1]), bool(found[-1])

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise VmcheckError(f"{self._path}: the store cannot be used: {error}") from None

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _row(identity: Identity, answers: tuple[object, ...]) -> Row:
    values = dict(zip(_ANSWERS, answers, strict=True))
    values["ranges"] = tuple((start, end) for start, end in json.loads(str(values["ranges"])))
    values["cpus"] = tuple(json.loads(str(values["cpus"])))
    return Row(identity, **values)  # type: ignore[arg-type]
