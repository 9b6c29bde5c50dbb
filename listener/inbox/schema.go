package inbox

// schema are the steps of the database; only ever appended. Times are Unix milliseconds, 0 for none.
var schema = []string{`
CREATE TABLE module (
	name        TEXT PRIMARY KEY,
	created     INTEGER NOT NULL,
	epoch       TEXT NOT NULL DEFAULT '',   -- '' until the tree was first compared with a manifest
	applied     INTEGER NOT NULL DEFAULT 0, -- everything up to this serial is on disk
	digest      BLOB,                       -- of the line of serial applied
	applied_at  INTEGER NOT NULL DEFAULT 0,
	entries     INTEGER NOT NULL DEFAULT 0, -- names in the module as far as known, 0 if not
	confirmed   INTEGER NOT NULL DEFAULT 0, -- an operator has allowed the deletions up to this serial
	quarantine  TEXT NOT NULL DEFAULT '',   -- why, '' if it is not
	quarantined INTEGER NOT NULL DEFAULT 0, -- since when
	trouble     TEXT NOT NULL DEFAULT '',   -- what kind of failure is in the way, a word of package listener
	error       TEXT NOT NULL DEFAULT '',
	path        BLOB NOT NULL DEFAULT x'',
	through     INTEGER NOT NULL DEFAULT 0, -- the last serial of the batch that failed
	since       INTEGER NOT NULL DEFAULT 0, -- of the first of the failures
	attempts    INTEGER NOT NULL DEFAULT 0,
	next        INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE heard (
	module TEXT NOT NULL,
	epoch  TEXT NOT NULL,
	serial INTEGER NOT NULL,
	kind   TEXT NOT NULL,
	line   BLOB NOT NULL,
	digest BLOB NOT NULL,
	prev   BLOB NOT NULL,
	paths  BLOB,                            -- the compressed path set, NULL if it did not come along or is no longer needed
	wide   INTEGER NOT NULL,                -- it names no path set: anything may have changed
	at     INTEGER NOT NULL,
	via    TEXT NOT NULL,
	state  TEXT NOT NULL CHECK (state IN ('pending', 'done')), -- done may be ahead of its turn: above module.applied
	ready  INTEGER NOT NULL DEFAULT 0,      -- a flip: "ready" was reported
	PRIMARY KEY (module, epoch, serial)
) STRICT;
CREATE INDEX heard_flips ON heard (module, epoch, state, serial) WHERE kind = 'flip';
CREATE TABLE head (
	module TEXT PRIMARY KEY,
	line   BLOB NOT NULL,
	at     INTEGER NOT NULL,
	via    TEXT NOT NULL
) STRICT;
CREATE TABLE budget (
	module TEXT NOT NULL,
	kind   TEXT NOT NULL,
	tokens REAL NOT NULL,
	at     INTEGER NOT NULL,
	PRIMARY KEY (module, kind)
) STRICT;
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
-- Runs begin with the time, in microseconds: those of a mirror that was set up anew come after the old ones, which masters remember.
INSERT INTO counter VALUES ('run', CAST(unixepoch('subsec') * 1000000 AS INTEGER));
`, `
CREATE TABLE push (
	module       TEXT PRIMARY KEY,
	asked        INTEGER NOT NULL, -- how often somebody said that something has changed
	asked_whole  INTEGER NOT NULL, -- the newest of these that asks for everything
	content_done INTEGER NOT NULL, -- content was brought for those up to this one
	whole_done   INTEGER NOT NULL, -- likewise everything
	confirmed    INTEGER NOT NULL, -- an operator has allowed the deletions of the next work for them
	plain        INTEGER NOT NULL, -- the upstream exported nothing when it was last asked
	synced       INTEGER NOT NULL, -- when everything was last brought from an upstream that exports nothing
	at           INTEGER NOT NULL, -- when the oldest came that is not done
	origin       TEXT NOT NULL     -- whence the newest came
) STRICT;
`, `
ALTER TABLE push ADD COLUMN asked_hops INTEGER NOT NULL DEFAULT 0; -- the newest that asks for content and is to be passed on
`, `
ALTER TABLE heard ADD COLUMN overtaken BLOB NOT NULL DEFAULT x''; -- of a flip that is not done, or ahead of its turn: its paths that what was announced and done after it states anew, each ended by NUL
`}
