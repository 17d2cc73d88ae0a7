-- Times are epoch milliseconds. JSON is kept as text: the database never looks into it.
-- Whatever is compared or put in order is compared byte by byte, as Python and SQLite do: collate "C".

create table environments (
    id                 text collate "C" primary key,
    concurrency_limit  bigint not null,
    paused             bigint not null default 0,
    created_at         bigint not null
);

create table versions (
    environment_id  text collate "C" not null references environments (id),
    version         text collate "C" not null,
    fingerprint     text collate "C" not null,
    created_at      bigint not null,
    primary key (environment_id, version)
);

create table tasks (
    environment_id  text collate "C" not null references environments (id),
    id              text collate "C" not null,
    version         text collate "C" not null,
    spec            text not null,
    primary key (environment_id, id)
);

create table queues (
    environment_id     text collate "C" not null references environments (id),
    name               text collate "C" not null,
    concurrency_limit  bigint,
    per_key_limit      bigint,
    paused             bigint not null default 0,
    primary key (environment_id, name)
);

create table workers (
    id              text collate "C" primary key,
    environment_id  text collate "C" not null references environments (id),
    name            text collate "C" not null,
    version         text collate "C" not null,
    tasks           text not null,
    lease_until     bigint not null,
    created_at      bigint not null
);

create index workers_by_lease on workers (lease_until);

-- The columns stand in the order of the fields of model.run.Run.
create table runs (
    id                  text collate "C" primary key,
    environment_id      text collate "C" not null,
    status              text collate "C" not null,
    lease               bigint not null,
    task                text collate "C" not null,
    version             text collate "C",
    version_lock        text collate "C",
    queue               text collate "C" not null,
    concurrency_key     text collate "C" not null,
    priority            bigint not null,
    score               bigint not null,
    attempt             bigint not null,
    starts              bigint not null,
    losses              bigint not null,
    alone               bigint not null,
    max_attempts        bigint,
    max_duration        bigint,
    machine             text collate "C",
    worker_id           text collate "C",
    is_test             bigint not null,
    ttl_ms              bigint,
    due_at              bigint,
    delayed_until       bigint,
    created_at          bigint not null,
    updated_at          bigint not null,
    started_at          bigint,
    finished_at         bigint,
    attempt_started_at  bigint,
    idempotency_key     text collate "C",
    parent_id           text collate "C",
    root_id             text collate "C",
    depth               bigint not null,
    batch_id            text collate "C",
    replay_of           text collate "C",
    tags                text not null,
    metadata            text not null,
    error               text,
    payload             text,
    output              text
)
-- A run is written three or four times in its life and then never again: room on the page for its next version, and a
-- vacuum that comes by the number of dead rows and not by a share of the history.
with (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.0, autovacuum_analyze_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

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
    id            text collate "C" primary key,
    run_id        text collate "C" not null references runs (id) on delete cascade,
    number        bigint not null,
    status        text collate "C" not null,
    started_at    bigint not null,
    completed_at  bigint,
    error         text
);

create index attempts_by_run on attempts (run_id, id);

create table run_tags (
    environment_id  text collate "C" not null,
    tag             text collate "C" not null,
    run_id          text collate "C" not null references runs (id) on delete cascade,
    primary key (environment_id, tag, run_id)
);

create index run_tags_by_run on run_tags (run_id);

create table idempotency_keys (
    environment_id  text collate "C" not null,
    task            text collate "C" not null,
    key             text collate "C" not null,
    run_id          text collate "C" not null references runs (id) on delete cascade,
    expires_at      bigint not null,
    primary key (environment_id, task, key)
);

create index idempotency_keys_by_run on idempotency_keys (run_id);

-- Answers of requests that carried a request key, so that a repeated request gets the first answer.
create table requests (
    environment_id  text collate "C" not null,
    key             text collate "C" not null,
    answer          text not null,
    created_at      bigint not null,
    primary key (environment_id, key)
);

create index requests_by_age on requests (created_at);

create table logs (
    id       bigint generated always as identity primary key,
    run_id   text collate "C" not null references runs (id) on delete cascade,
    attempt  bigint not null,
    at       bigint not null,
    level    text collate "C" not null,
    logger   text collate "C" not null,
    message  text not null
);

create index logs_by_run on logs (run_id, id);

insert into environments (id, concurrency_limit, created_at)
values ('dev', 1000, 0), ('staging', 1000, 0), ('prod', 1000, 0);
