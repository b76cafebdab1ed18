"""The tables of the local page's database."""

from __future__ import annotations

from pulse_edge.common.database import Kind
from pulse_edge.errors import ServeError

DATABASE = "web.sqlite"
_SCHEMA = """
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,            -- and the file's name below uploads/
    name TEXT NOT NULL,             -- as the client names it, printable
    created TEXT NOT NULL,          -- UTC
    source TEXT NOT NULL,
    owner TEXT,
    options TEXT NOT NULL,          -- JSON of a PageRequest
    pages INTEGER,                  -- null: not opened yet
    crashes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE readings (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    upload TEXT NOT NULL REFERENCES uploads (id),
    page INTEGER NOT NULL,          -- from 1
    name TEXT NOT NULL,
    day TEXT NOT NULL,              -- local
    state TEXT NOT NULL DEFAULT 'checking'
        CHECK (state IN ('checking', 'refused', 'waiting', 'done', 'failed')),
    forced INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,   -- of the page worker
    checked TEXT,                   -- JSON: admission, measurements, pictures
    report TEXT,                    -- JSON
    error TEXT,
    exit_code INTEGER NOT NULL DEFAULT 0,
    confirmation TEXT,              -- JSON
    settled TEXT                    -- local day from which the days of retention count
);
CREATE INDEX readings_by_state ON readings (state, number);
CREATE INDEX readings_by_day ON readings (day, number);
CREATE TABLE turns (
    reading TEXT NOT NULL REFERENCES readings (id),
    number INTEGER NOT NULL,        -- from 1
    question TEXT NOT NULL,
    fresh INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'done', 'stopped', 'failed')),
    report TEXT,                    -- JSON, with this one answer
    error TEXT,
    PRIMARY KEY (reading, number)
);
CREATE TABLE jobs (                 -- of the model worker
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    reading TEXT NOT NULL REFERENCES readings (id),
    turn INTEGER NOT NULL,          -- 0: the report
    priority INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    report TEXT,                    -- answered; its entries in the audit log may be missing
    ended TEXT,                     -- how the answer ended, as the audit log says it
    UNIQUE (reading, turn)
);
CREATE TABLE entries (              -- for the audit log, where they may be missing
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,       -- the entry's field `id`
    reading TEXT NOT NULL,
    fields TEXT NOT NULL,           -- JSON
    retained TEXT                   -- JSON: days, texts, picture (name of a file); null: hashes only
);
CREATE TABLE sessions (
    hash TEXT PRIMARY KEY,          -- SHA-256 of the cookie
    created TEXT NOT NULL
);
"""
KIND = Kind(
    DATABASE, "web", ServeError, "--folder", _SCHEMA, unfinished=("", "uploads", "pictures")
)
