CREATE TABLE api_keys (
    id              text primary key,
    environment_id  text not null references environments (id),
    kind            text not null,
    name            text not null,
    digest          text not null,
    shown           text not null,
    sealed          text,
    scopes          text,
    created_at      integer not null,
    expires_at      integer,
    revoked_at      integer
) strict, without rowid;

CREATE UNIQUE INDEX api_keys_by_digest on api_keys (digest);

CREATE INDEX api_keys_by_environment on api_keys (environment_id, id);

CREATE TABLE attempts (
    id            text primary key,
    run_id        text not null references runs (id) on delete cascade,
    number        integer not null,
    status        text not null,
    started_at    integer not null,
    completed_at  integer,
    error         text
) strict, without rowid;

CREATE INDEX attempts_by_run on attempts (run_id, id);

CREATE TABLE batch_items (
    batch_id   text not null references batches (id) on delete cascade,
    number     integer not null,
    task       text not null,
    run_id     text,
    is_cached  integer not null,
    error      text,
    primary key (batch_id, number)
) strict, without rowid;

CREATE TABLE batches (
    id              text primary key,
    environment_id  text not null,
    run_count       integer not null,
    arrived         integer not null default 0,
    created_at      integer not null,
    updated_at      integer not null,
    sealed_at       integer,
    aborted_at      integer,
    due_at          integer,
    key_digest      text,
    key_shown       text,
    key_expires_at  integer,
    parent_id       text
) strict;

CREATE INDEX batches_by_age on batches (environment_id, created_at);

CREATE UNIQUE INDEX batches_by_key on batches (key_digest) where key_digest is not null;

CREATE INDEX batches_due on batches (due_at) where due_at is not null;

CREATE TABLE bulk_actions (
    id              text primary key,
    environment_id  text not null,
    type            text not null,
    status          text not null,
    name            text,
    filter          text,
    scanned         text not null,
    scan_until      text,
    acted           text not null,
    total           integer not null,
    success         integer not null,
    failure         integer not null,
    created_at      integer not null,
    updated_at      integer not null,
    completed_at    integer
) strict;

CREATE INDEX bulk_actions_by_environment on bulk_actions (environment_id, id);

CREATE INDEX bulk_actions_pending on bulk_actions (updated_at, id) where status = 'PENDING';

CREATE TABLE bulk_members (
    bulk_id  text not null references bulk_actions (id),
    run_id   text not null,
    primary key (bulk_id, run_id)
) strict, without rowid;

CREATE TABLE deployments (
    id               text primary key,
    environment_id   text not null references environments (id),
    version          text not null,
    short_code       text not null,
    status           text not null,
    runtime          text,
    runtime_version  text,
    git              text,
    external_id      text,
    created_at       integer not null,
    deployed_at      integer,
    tasks            text not null,
    queues           text not null
) strict, without rowid;

CREATE INDEX deployments_by_environment on deployments (environment_id, id);

CREATE UNIQUE INDEX deployments_by_version on deployments (environment_id, version);

CREATE TABLE environments (
    id                 text primary key,
    concurrency_limit  integer not null,
    paused             integer not null default 0,
    created_at         integer not null
, project_id text not null default 'proj_default', type text not null default 'dev', branch text, archived_at integer, current_version text) strict;

CREATE UNIQUE INDEX environments_by_project on environments (project_id, type, coalesce(branch, ''));

CREATE TABLE external_deployments (
    environment_id  text not null references environments (id),
    external_id     text not null,
    version         text not null,
    primary key (environment_id, external_id, version)
) strict, without rowid;

CREATE TABLE idempotency_keys (
    environment_id  text not null,
    task            text not null,
    key             text not null,
    run_id          text not null references runs (id) on delete cascade,
    expires_at      integer not null,
    primary key (environment_id, task, key)
) strict, without rowid;

CREATE INDEX idempotency_keys_by_run on idempotency_keys (run_id);

CREATE TABLE journal (
    run_id  text not null,
    seq     integer not null,
    scope   text not null,
    kind    text not null,
    name    text not null,
    args    text,
    ok      integer,
    value   text,
    ref     text,
    primary key (run_id, seq)
) strict, without rowid;

CREATE TABLE kept_for (
    target  text not null,
    run_id  text not null references runs (id) on delete cascade,
    primary key (run_id, target)
) strict, without rowid;

CREATE INDEX kept_for_by_target on kept_for (target);

CREATE TABLE logs (
    id       integer primary key,
    run_id   text not null references runs (id) on delete cascade,
    attempt  integer not null,
    at       integer not null,
    level    text not null,
    logger   text not null,
    message  text not null
) strict;

CREATE INDEX logs_by_run on logs (run_id, id);

CREATE TABLE migrations (name text primary key, applied_at integer not null);

CREATE TABLE packet_runs (
    key     text not null references packets (key),
    run_id  text not null,
    primary key (key, run_id)
) strict, without rowid;

CREATE INDEX packet_runs_by_run on packet_runs (run_id);

CREATE TABLE packets (
    key         text primary key,
    created_at  integer not null,
    due_at      integer,
    deleting    integer not null default 0
) strict, without rowid;

CREATE INDEX packets_due on packets (due_at) where due_at is not null;

CREATE TABLE projects (
    id          text primary key,
    ref         text not null,
    name        text not null,
    created_at  integer not null
) strict, without rowid;

CREATE UNIQUE INDEX projects_by_ref on projects (ref);

CREATE TABLE queues (
    environment_id     text not null references environments (id),
    name               text not null,
    concurrency_limit  integer,
    per_key_limit      integer,
    paused             integer not null default 0, id text, override_limit integer, overridden_at integer,
    primary key (environment_id, name)
) strict, without rowid;

CREATE UNIQUE INDEX queues_by_id on queues (id);

CREATE INDEX queues_limited on queues (environment_id, name, concurrency_limit, per_key_limit, override_limit, paused)
    where paused = 1 or concurrency_limit is not null or per_key_limit is not null or override_limit is not null;

CREATE TABLE requests (
    environment_id  text not null,
    key             text not null,
    answer          text not null,
    created_at      integer not null,
    primary key (environment_id, key)
) strict, without rowid;

CREATE INDEX requests_by_age on requests (created_at);

CREATE TABLE run_tags (
    environment_id  text not null,
    tag             text not null,
    run_id          text not null references runs (id) on delete cascade,
    primary key (environment_id, tag, run_id)
) strict, without rowid;

CREATE INDEX run_tags_by_run on run_tags (run_id);

CREATE TABLE runs (
    id                  text primary key,
    environment_id      text not null,
    status              text not null,
    lease               integer not null,
    task                text not null,
    version             text,
    version_lock        text,
    queue               text not null,
    concurrency_key     text not null,
    priority            integer not null,
    score               integer not null,
    attempt             integer not null,
    starts              integer not null,
    losses              integer not null,
    alone               integer not null,
    max_attempts        integer,
    max_duration        integer,
    machine             text,
    worker_id           text,
    is_test             integer not null,
    ttl_ms              integer,
    due_at              integer,
    delayed_until       integer,
    created_at          integer not null,
    updated_at          integer not null,
    started_at          integer,
    finished_at         integer,
    attempt_started_at  integer,
    idempotency_key     text,
    parent_id           text,
    root_id             text,
    depth               integer not null,
    batch_id            text,
    replay_of           text,
    tags                text not null,
    metadata            text not null,
    error               text,
    payload             text,
    output              text
, entries integer not null default 0, journal_bytes integer not null default 0, suspended integer not null default 0, resumes integer not null default 0, active_ms integer not null default 0, operations integer not null default 0, payload_type text, output_type text, idempotency_key_shown text, external_deployment text, ttl_shown text) strict;

CREATE INDEX runs_by_batch on runs (batch_id, id) where batch_id is not null;

CREATE INDEX runs_by_environment on runs (environment_id, id);

CREATE INDEX runs_by_parent on runs (parent_id, id) where parent_id is not null;

CREATE INDEX runs_by_task on runs (environment_id, task, id);

CREATE INDEX runs_due on runs (due_at) where due_at is not null;

CREATE INDEX runs_held on runs (worker_id, environment_id, queue, concurrency_key, status) where worker_id is not null;

CREATE INDEX runs_parked on runs (environment_id, task, id) where status = 'WAITING_FOR_DEPLOY';

CREATE INDEX runs_pinned
    on runs (environment_id, coalesce(version_lock, version), task, queue, concurrency_key, score, id)
    where status = 'QUEUED' and (version_lock is not null or version is not null);

CREATE INDEX runs_ready on runs (environment_id, task, queue, concurrency_key, score, id) where status = 'QUEUED';

CREATE INDEX runs_unfinished on runs (environment_id, id) where finished_at is null;

CREATE INDEX runs_unsuccessful on runs (environment_id, status, id)
    where finished_at is not null and status <> 'COMPLETED_SUCCESSFULLY';

CREATE TABLE schedules (
    id                 text primary key,
    environment_id     text not null references environments (id),
    project            text not null,
    type               text not null,
    task               text not null,
    expression         text not null,
    timezone           text not null,
    spread_window      text,
    overlap            text not null,
    catch_up           text not null,
    external_id        text,
    deduplication_key  text,
    active             integer not null default 1,
    tick_at            integer not null,
    due_at             integer,
    last_at            integer,
    last_run_id        text,
    created_at         integer not null,
    updated_at         integer not null
) strict, without rowid;

CREATE INDEX schedules_by_environment on schedules (environment_id, id);

CREATE UNIQUE INDEX schedules_by_key on schedules (project, deduplication_key) where deduplication_key is not null;

CREATE UNIQUE INDEX schedules_by_task on schedules (environment_id, task) where type = 'DECLARATIVE';

CREATE INDEX schedules_due on schedules (due_at) where due_at is not null;

CREATE TABLE tasks (
    environment_id  text not null references environments (id),
    id              text not null,
    version         text not null,
    spec            text not null, retired integer not null default 0,
    primary key (environment_id, id)
) strict, without rowid;

CREATE TABLE ticks (
    schedule_id  text not null,
    tick_at      integer not null,
    run_id       text,
    refusal      text,
    at           integer not null,
    primary key (schedule_id, tick_at)
) strict, without rowid;

CREATE UNIQUE INDEX ticks_by_run on ticks (run_id) where run_id is not null;

CREATE INDEX ticks_by_schedule on ticks (schedule_id, run_id) where run_id is not null;

CREATE INDEX ticks_refused on ticks (at) where run_id is null;

CREATE TABLE used_tokens (
    digest      text primary key,
    used_by     text not null,
    expires_at  integer not null
) strict, without rowid;

CREATE INDEX used_tokens_by_expiry on used_tokens (expires_at);

CREATE TABLE variables (
    environment_id  text not null references environments (id),
    name            text not null,
    sealed          text not null,
    bytes           integer not null,
    is_secret       integer not null,
    created_at      integer not null,
    updated_at      integer not null,
    primary key (environment_id, name)
) strict, without rowid;

CREATE TABLE versions (
    environment_id  text not null references environments (id),
    version         text not null,
    fingerprint     text not null,
    created_at      integer not null, tasks text, queues text,
    primary key (environment_id, version)
) strict, without rowid;

CREATE INDEX versions_by_code on versions (environment_id, fingerprint);

CREATE TABLE waitpoints (
    id                          text primary key,
    environment_id              text not null,
    status                      text not null,
    output                      text,
    output_is_error             integer not null default 0,
    created_at                  integer not null,
    completed_at                integer,
    timeout_at                  integer,
    idempotency_key             text,
    idempotency_key_expires_at  integer,
    tags                        text not null,
    schema                      text,
    run_id                      text
) strict;

CREATE INDEX waitpoints_by_environment on waitpoints (environment_id, id);

CREATE UNIQUE INDEX waitpoints_by_key on waitpoints (environment_id, idempotency_key)
    where idempotency_key is not null;

CREATE INDEX waitpoints_due on waitpoints (timeout_at) where status = 'WAITING' and timeout_at is not null;

CREATE TABLE waits (
    run_id  text not null references runs (id) on delete cascade,
    number  integer not null,
    part    integer not null,
    target  text,
    due_at  integer,
    wake    text not null,
    primary key (run_id, part, number)
) strict, without rowid;

CREATE INDEX waits_by_target on waits (target) where target is not null;

CREATE INDEX waits_due on waits (due_at) where due_at is not null;

CREATE TABLE workers (
    id              text primary key,
    environment_id  text not null references environments (id),
    name            text not null,
    version         text not null,
    tasks           text not null,
    lease_until     integer not null,
    created_at      integer not null
) strict, without rowid;

CREATE INDEX workers_by_lease on workers (lease_until);
