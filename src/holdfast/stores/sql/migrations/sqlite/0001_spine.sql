-- Times are epoch milliseconds. JSON is kept as text: the database never looks into it.

create table environments (
    id                 text primary key,
    concurrency_limit  integer not null,
    paused             integer not null default 0,
    created_at         integer not null
) strict;

create table versions (
    environment_id  text not null references environments (id),
    version         text not null,
    fingerprint     text not null,
    created_at      integer not null,
    primary key (environment_id, version)
) strict, without rowid;

create table tasks (
    environment_id  text not null references environments (id),
    id              text not null,
    version         text not null,
    spec            text not null,
    primary key (environment_id, id)
) strict, without rowid;

create table queues (
    environment_id     text not null references environments (id),
    name               text not null,
    concurrency_limit  integer,
    per_key_limit      integer,
    paused             integer not null default 0,
    primary key (environment_id, name)
) strict, without rowid;

create table workers (
    id              text primary key,
    environment_id  text not null references environments (id),
    name            text not null,
    version         text not null,
    tasks           text not null,
    lease_until     integer not null,
    created_at      integer not null
) strict, without rowid;

create index workers_by_lease on workers (lease_until);

-- The columns stand in the order of the fields of model.run.Run.
create table runs (
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
) strict;

-- What the hot path reads is bounded by the live work: each of these but the lists is partial.
create index runs_ready on runs (environment_id, task, queue, concurrency_key, score, id) where status = 'QUEUED';
create index runs_held on runs (worker_id, environment_id, queue, concurrency_key, status) where worker_id is not null;
create index runs_due on runs (due_at) where due_at is not null;
create index runs_parked on runs (environment_id, task, id) where status = 'WAITING_FOR_DEPLOY';
create index runs_unfinished on runs (environment_id, id) where finished_at is null;
create index runs_unsuccessful on runs (environment_id, status, id)
    where finished_at is not null and status <> 'COMPLETED_SUCCESSFULLY';
create index runs_by_environment on runs (environment_id, id);
create index runs_by_task on runs (environment_id, task, id);
create index runs_by_parent on runs (parent_id, id) where parent_id is not null;
create index runs_by_batch on runs (batch_id, id) where batch_id is not null;

create table attempts (
    id            text primary key,
    run_id        text not null references runs (id) on delete cascade,
    number        integer not null,
    status        text not null,
    started_at    integer not null,
    completed_at  integer,
    error         text
) strict, without rowid;

create index attempts_by_run on attempts (run_id, id);

create table run_tags (
    environment_id  text not null,
    tag             text not null,
    run_id          text not null references runs (id) on delete cascade,
    primary key (environment_id, tag, run_id)
) strict, without rowid;

create index run_tags_by_run on run_tags (run_id);

create table idempotency_keys (
    environment_id  text not null,
    task            text not null,
    key             text not null,
    run_id          text not null references runs (id) on delete cascade,
    expires_at      integer not null,
    primary key (environment_id, task, key)
) strict, without rowid;

create index idempotency_keys_by_run on idempotency_keys (run_id);

-- Answers of requests that carried a request key, so that a repeated request gets the first answer.
create table requests (
    environment_id  text not null,
    key             text not null,
    answer          text not null,
    created_at      integer not null,
    primary key (environment_id, key)
) strict, without rowid;

create index requests_by_age on requests (created_at);

create table logs (
    id       integer primary key,
    run_id   text not null references runs (id) on delete cascade,
    attempt  integer not null,
    at       integer not null,
    level    text not null,
    logger   text not null,
    message  text not null
) strict;

create index logs_by_run on logs (run_id, id);

insert into environments (id, concurrency_limit, created_at)
values ('dev', 1000, 0), ('staging', 1000, 0), ('prod', 1000, 0);
