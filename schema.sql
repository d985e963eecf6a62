-- The schema of tallybox.db. A new database gets this file as it is; an older one is brought here by the numbered
-- migrations in src/store/migrate.rs, and a test holds the two equal.
--
-- Times are milliseconds since 1970 (UTC), days are days since 1970 in the zone that `quota.timezone` named when the row
-- was written. Ids that leave the box are UUIDv7 made of a row's time and its row id (see src/store/id.rs), so that no
-- table needs a second unique index for them.

-- What is kept about the database itself: the embedding model, how far days are closed, and marks of work under way
-- (repair, re-embedding, emptying the log).
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- An erased user stays as a bare id: e-mail and password are gone, `erased_at` is set, the id never comes back.
CREATE TABLE users (
    id            INTEGER PRIMARY KEY,
    uuid          BLOB    NOT NULL UNIQUE CHECK (length(uuid) = 16),
    email         TEXT,
    email_key     TEXT    UNIQUE,
    role          TEXT    NOT NULL CHECK (role IN ('user', 'admin')),
    tier          TEXT    NOT NULL,
    password_hash TEXT,
    disabled_at   INTEGER,
    erased_at     INTEGER,
    created_at    INTEGER NOT NULL
) STRICT;

-- Secrets are stored as SHA-256: of sessions, of tokens, of one-time links.
CREATE TABLE sessions (
    id           INTEGER PRIMARY KEY,
    hash         BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    user_id      INTEGER NOT NULL REFERENCES users (id),
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    -- 1: ended by the lowering of its user's role, which lets the streams go on that it began
    is_lowered   INTEGER NOT NULL DEFAULT 0 CHECK (is_lowered IN (0, 1))
) STRICT;
-- ends all sessions of a user
CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE tokens (
    id           INTEGER PRIMARY KEY,
    hash         BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    user_id      INTEGER NOT NULL REFERENCES users (id),
    name         TEXT    NOT NULL,
    scopes       INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    revoked_at   INTEGER
) STRICT;
-- lists and revokes the tokens of a user
CREATE INDEX tokens_user ON tokens (user_id);

-- One-time links: the setup of a first administrator (no user), or the choice of a password.
CREATE TABLE links (
    hash       BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    user_id    INTEGER REFERENCES users (id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    by_token   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
-- voids older links of a user
CREATE INDEX links_user ON links (user_id);

CREATE TABLE audit (
    id            INTEGER PRIMARY KEY,
    at            INTEGER NOT NULL,
    actor_kind    TEXT    NOT NULL CHECK (actor_kind IN ('user', 'command_line', 'system')),
    actor_id      INTEGER REFERENCES users (id),
    actor_email   TEXT,
    action        TEXT    NOT NULL,
    subject_id    INTEGER REFERENCES users (id),
    subject_email TEXT,
    before        TEXT,
    after         TEXT,
    address       TEXT
) STRICT;

-- Per user and resource: the level of a level (for the others the sum of everything ever booked), and the newest entry,
-- where the user's chain of entries begins.
CREATE TABLE accounts (
    user_id  INTEGER NOT NULL REFERENCES users (id),
    resource INTEGER NOT NULL,
    total    INTEGER NOT NULL,
    head     INTEGER NOT NULL,
    PRIMARY KEY (user_id, resource)
) STRICT, WITHOUT ROWID;

-- Per day, resource and user: the sum of the day's entries, what is held in that day, the newest entry that was recorded
-- on that day (which is where a listing that ends at a date begins), and, once retention has closed the day, the entry that
-- stands for its entries. The day comes first, so that all rows of today lie on few pages: how many pages a commit dirties
-- decides how fast it is.
CREATE TABLE buckets (
    day      INTEGER NOT NULL,
    resource INTEGER NOT NULL,
    user_id  INTEGER NOT NULL REFERENCES users (id),
    amount   INTEGER NOT NULL DEFAULT 0,
    reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    head     INTEGER,
    closing  INTEGER,
    PRIMARY KEY (day, resource, user_id)
) STRICT, WITHOUT ROWID;

-- The ledger: append-only. `previous` is the entry before this one of the same user and resource, so that a listing
-- walks back without an index, which would dirty a page of its own for each entry. Source 4 is the closing entry that
-- stands for the entries of a day; its amount may be 0.
CREATE TABLE ledger (
    id          INTEGER PRIMARY KEY,
    user_id     INTEGER NOT NULL REFERENCES users (id),
    resource    INTEGER NOT NULL CHECK (resource BETWEEN 0 AND 2),
    amount      INTEGER NOT NULL CHECK (amount <> 0 OR source = 4),
    timestamp   INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    day         INTEGER NOT NULL,
    source      INTEGER NOT NULL CHECK (source BETWEEN 0 AND 5),
    previous    INTEGER,
    reverses    INTEGER REFERENCES ledger (id),
    metadata    TEXT
) STRICT;
-- the sum of the reversals of an entry
CREATE INDEX ledger_reversals ON ledger (reverses) WHERE reverses IS NOT NULL;
-- what was recorded long after the day it counts in, for retention; few entries are, so that it costs the others nothing
CREATE INDEX ledger_late ON ledger (day) WHERE recorded_at >= (day + 2) * 86400000 AND source <> 4;

-- Per day, user and model: the tokens of the entries whose metadata name a model, and how many calls that were.
CREATE TABLE model_totals (
    day        INTEGER NOT NULL,
    user_id    INTEGER NOT NULL REFERENCES users (id),
    model      TEXT    NOT NULL,
    calls      INTEGER NOT NULL DEFAULT 0,
    prompt     INTEGER NOT NULL DEFAULT 0,
    completion INTEGER NOT NULL DEFAULT 0,
    tokens     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, user_id, model)
) STRICT, WITHOUT ROWID;

-- The one door through which entries may leave: open only inside the transaction of an erasure or of retention, which
-- puts a row here and takes it away again before it commits.
CREATE TABLE ledger_door (
    user_id INTEGER PRIMARY KEY REFERENCES users (id),
    reason  TEXT    NOT NULL CHECK (reason IN ('erasure', 'retention'))
) STRICT;

-- Retention may say anew which entry an entry follows, and nothing else.
CREATE TRIGGER ledger_is_never_updated BEFORE UPDATE ON ledger
WHEN NOT EXISTS (SELECT 1 FROM ledger_door WHERE ledger_door.user_id = OLD.user_id AND reason = 'retention')
    OR (NEW.id, NEW.user_id, NEW.resource, NEW.amount, NEW.timestamp, NEW.recorded_at, NEW.day, NEW.source)
        IS NOT (OLD.id, OLD.user_id, OLD.resource, OLD.amount, OLD.timestamp, OLD.recorded_at, OLD.day, OLD.source)
    OR NEW.reverses IS NOT OLD.reverses
    OR NEW.metadata IS NOT OLD.metadata
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only');
END;

CREATE TRIGGER ledger_is_never_deleted BEFORE DELETE ON ledger
WHEN NOT EXISTS (SELECT 1 FROM ledger_door WHERE ledger_door.user_id = OLD.user_id)
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only');
END;

CREATE TRIGGER ledger_closings_are_of_retention BEFORE INSERT ON ledger
WHEN NEW.source = 4 AND NOT EXISTS (
    SELECT 1 FROM ledger_door WHERE ledger_door.user_id = NEW.user_id AND reason = 'retention')
BEGIN
    SELECT RAISE(ABORT, 'only retention closes days');
END;

-- Users who are being erased, or were: how far it has come, and how many rows of what it took (a JSON object). What is left
-- of a user between two steps is not held to any total.
CREATE TABLE erasures (
    user_id     INTEGER PRIMARY KEY REFERENCES users (id),
    stage       INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    counts      TEXT    NOT NULL,
    begun_at    INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;
-- what is to be gone on with
CREATE INDEX erasures_open ON erasures (user_id) WHERE finished_at IS NULL;

-- state: 0 open and holding, 1 open but freed by its expiry, 2 settled, 3 released.
-- maker: 0 the user, 1 a caller with act-as (maker_id), 2 an identity proxy, 3 the gateway, 4 an agent run.
-- While a hold of the gateway is open, `settled` is what has been delivered by the last checkpoint and `metadata` what is
-- known of the call: what the next start books where this one dies.
CREATE TABLE reservations (
    id          INTEGER PRIMARY KEY,
    user_id     INTEGER NOT NULL REFERENCES users (id),
    resource    INTEGER NOT NULL CHECK (resource IN (0, 2)),
    amount      INTEGER NOT NULL CHECK (amount > 0),
    day         INTEGER NOT NULL,
    maker       INTEGER NOT NULL CHECK (maker BETWEEN 0 AND 4),
    maker_id    INTEGER REFERENCES users (id),
    made_at     INTEGER NOT NULL,
    expires_at  INTEGER,
    state       INTEGER NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 3),
    resolved_at INTEGER,
    entry_id    INTEGER,
    settled     INTEGER,
    metadata    TEXT,
    late        INTEGER NOT NULL DEFAULT 0
) STRICT;
-- a user's open holds; what of them has expired. The only index of one that does not expire: it costs a page of each commit
CREATE INDEX reservations_holding ON reservations (user_id, resource, expires_at) WHERE state = 0;
-- the worker's next expired holds
CREATE INDEX reservations_expiry ON reservations (expires_at) WHERE state = 0 AND expires_at IS NOT NULL;

-- Agent runs. `held`: minutes held since the beginning, those already booked among them. `due_at`: when the run is over
-- without another sign of life; null once its minutes are booked.
-- end_reason: 0 stopped, 1 no heartbeat, 2 no more could be held, 3 its bound, 4 its user was disabled.
CREATE TABLE runs (
    id          INTEGER PRIMARY KEY,
    user_id     INTEGER NOT NULL REFERENCES users (id),
    name        TEXT,
    metadata    TEXT,
    tier        TEXT    NOT NULL,
    max_minutes INTEGER CHECK (max_minutes > 0),
    started_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    held        INTEGER NOT NULL CHECK (held >= 0),
    due_at      INTEGER,
    ended_at    INTEGER,
    end_reason  INTEGER CHECK (end_reason BETWEEN 0 AND 4)
) STRICT;
-- lists a user's runs, newest first
CREATE INDEX runs_user ON runs (user_id, id);
-- the worker's next runs that are over
CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL;

-- What a run holds and has not booked: one hold a month.
CREATE TABLE run_holds (
    run_id         INTEGER NOT NULL REFERENCES runs (id),
    reservation_id INTEGER NOT NULL REFERENCES reservations (id),
    PRIMARY KEY (run_id, reservation_id)
) STRICT, WITHOUT ROWID;
-- a hold is not forgotten while a run has it
CREATE INDEX run_holds_reservation ON run_holds (reservation_id);

-- First answers of creating writes, for those who must ask twice.
CREATE TABLE idempotency (
    user_id    INTEGER NOT NULL REFERENCES users (id),
    key        TEXT    NOT NULL,
    payload    BLOB    NOT NULL CHECK (length(payload) = 32),
    status     INTEGER NOT NULL,
    answer     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    subject    INTEGER REFERENCES users (id),
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;
-- answers about another user than the caller, which that user's erasure takes away
CREATE INDEX idempotency_subject ON idempotency (subject) WHERE subject IS NOT NULL;
-- the worker's answers that are past their 24 hours
CREATE INDEX idempotency_age ON idempotency (created_at);

-- Refused writes, counted by user, resource and hour.
CREATE TABLE refusals (
    hour     INTEGER NOT NULL,
    user_id  INTEGER NOT NULL REFERENCES users (id),
    resource INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    PRIMARY KEY (hour, user_id, resource)
) STRICT, WITHOUT ROWID;
-- one user's refusals over the days of a chart
CREATE INDEX refusals_user ON refusals (user_id, hour, count);

-- Per day and upstream of the gateway: how often it was asked, how often which fault it had, and how long its answers and
-- the first words of its streams took (src/domain/gateway/figures.rs). Counted apart from the ledger and written down by
-- the worker: a second of it may be lost where the program dies.
CREATE TABLE upstream_days (
    day          INTEGER NOT NULL,
    upstream     TEXT    NOT NULL,
    calls        INTEGER NOT NULL CHECK (calls >= 0),
    busy         INTEGER NOT NULL CHECK (busy >= 0),
    unreachable  INTEGER NOT NULL CHECK (unreachable >= 0),
    timed_out    INTEGER NOT NULL CHECK (timed_out >= 0),
    rate_limited INTEGER NOT NULL CHECK (rate_limited >= 0),
    failed       INTEGER NOT NULL CHECK (failed >= 0),
    broken       INTEGER NOT NULL CHECK (broken >= 0),
    durations    BLOB    NOT NULL,
    first_tokens BLOB    NOT NULL,
    PRIMARY KEY (day, upstream)
) STRICT, WITHOUT ROWID;

-- tier: 0 short-term, 1 intermediate-term, 2 long-term. `tags` and `metadata` are compact JSON, null when empty.
-- source: what an imported memory is known again by, 16 bytes of a SHA-256.
-- Never reused ids, since vectors and full-text rows are tied to them.
CREATE TABLE memories (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id      INTEGER NOT NULL REFERENCES users (id),
    tier         INTEGER NOT NULL CHECK (tier BETWEEN 0 AND 2),
    type         TEXT    NOT NULL,
    text         TEXT    NOT NULL,
    tags         TEXT,
    metadata     TEXT,
    session      TEXT,
    timestamp    INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    last_seen_at INTEGER,
    expires_at   INTEGER,
    size_bytes   INTEGER NOT NULL CHECK (size_bytes > 0),
    text_bytes   INTEGER NOT NULL,
    content_hash INTEGER NOT NULL,
    source       BLOB    CHECK (length(source) = 16)
) STRICT;
-- lists a user's memories, newest first; a search of one user learns from it alone what lives and how long the texts are
CREATE INDEX memories_user ON memories (user_id, id, expires_at, text_bytes);
-- a duplicate: the same tier, type, session and normalised text of the same user
CREATE INDEX memories_content ON memories (user_id, content_hash);
-- what has been imported already, so that the same import adds nothing twice
CREATE UNIQUE INDEX memories_source ON memories (user_id, source) WHERE source IS NOT NULL;
-- what was said before and after; those without a session follow each other too
CREATE INDEX memories_session ON memories (user_id, session, timestamp, expires_at);
-- sums what has expired without touching the rows
CREATE INDEX memories_expiry ON memories (user_id, expires_at, tier, size_bytes, text_bytes) WHERE expires_at IS NOT NULL;

-- Per user and tier: what is held, without those whose end has been booked (see memory_expiry).
CREATE TABLE memory_totals (
    user_id    INTEGER NOT NULL REFERENCES users (id),
    tier       INTEGER NOT NULL,
    memories   INTEGER NOT NULL CHECK (memories >= 0),
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    text_bytes INTEGER NOT NULL CHECK (text_bytes >= 0),
    PRIMARY KEY (user_id, tier)
) STRICT, WITHOUT ROWID;

-- Per user: the instant up to which the ends of memories are booked.
CREATE TABLE memory_expiry (
    user_id      INTEGER PRIMARY KEY REFERENCES users (id),
    booked_until INTEGER NOT NULL
) STRICT;

-- Per user: how many commits changed the memories, by which what is kept of them elsewhere knows its age.
CREATE TABLE memory_versions (
    user_id INTEGER PRIMARY KEY REFERENCES users (id),
    version INTEGER NOT NULL
) STRICT;

-- An embedding a window of the text: 384 little-endian 32-bit floats of length 1. The id is the memory's, shifted by 12
-- bits, plus the window, so that a memory's windows are one range.
CREATE TABLE vectors (
    id        INTEGER PRIMARY KEY,
    embedding BLOB    NOT NULL CHECK (length(embedding) = 1536)
) STRICT;

-- Full text. Contentless and without sizes: the words of a text are derived from it (src/domain/words.rs), and every word
-- begins with its user's number, so that a search reads no other user's rows and other users' words count for nothing. All
-- cutting and folding is ours; the tokenizer only splits at spaces.
CREATE VIRTUAL TABLE words USING fts5 (
    body,
    content = '',
    columnsize = 0,
    tokenize = 'ascii'
);
-- the rows that hold a word, once for each time they hold it
CREATE VIRTUAL TABLE word_rows USING fts5vocab (words, instance);
