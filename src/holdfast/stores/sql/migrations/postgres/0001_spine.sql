-- Times are epoch milliseconds. JSON is kept as text: the database never looks into it.

create table environments (
    id                 text primary key,
    concurrency_limit  bigint not null,
    paused             bigint not null default 0,
    created_at         bigint not null
);

create table versions (
    environment_id  text not null references environments (id),
    version         text not null,
    fingerprint     text not null,
    created_at      bigint not null,
    primary key (environment_id, version)
);

create table tasks (
    environment_id  text not null references environments (id),
    id              text not null,
    version         text not null,
    spec            text not null,
    primary key (environment_id, id)
);

create table queues (
    environment_id     text not null references environments (id),
    name               text not null,
    concurrency_limit  bigint,
    per_key_limit      bigint,
    paused             bigint not null default 0,
    primary key (environment_id, name)
);

create table workers (
    id              text primary key,
    environment_id  text not null references environments (id),
    name            text not null,
    version         text not null,
    tasks           text not null,
    lease_until     bigint not null,
    created_at      bigint not null
);

create index workers_by_lease on workers (lease_until);

-- The columns stand in the order of the fields of model.run.Run.
create table runs (
    id                  text primary key,
    environment_id      text not null references environments (id),
    status              text not null,
    lease               bigint not null,
    task                text not null,
    version             text,
    version_lock        text,
    queue               text not null,
    concurrency_key     text not null,
    priority            bigint not null,
    score               bigint not null,
    attempt             bigint not null,
    starts              bigint not null,
    losses              bigint not null,
    alone               bigint not null,
    max_attempts        bigint,
    max_duration        bigint,
    machine             text,
    worker_id           text,
    is_test             bigint not null,
    ttl_ms              bigint,
    due_at              bigint,
    delayed_until       bigint,
    created_at          bigint not null,
    updated_at          bigint not null,
    started_at          bigint,
    finished_at         bigint,
    attempt_started_at  bigint,
    idempotency_key     text,
    parent_id           text,
    root_id             text,
    depth               bigint not null,
    batch_id            text,
    replay_of           text,
    tags                text not null,
    metadata            text not null,
    error               text,
    payload             text,
    output              text
);

-- What the hot path reads is bounded by the live work: each of these but the lists is partial.
create index runs_ready on runs (environment_id, task, queue, concurrency_key, score, id) where status = 'QUEUED';
create index runs_held on runs (worker_id, environment_id, queue, concurrency_key, status) where worker_id is not null;
create index runs_due on runs (due_at) where due_at is not null;
create index runs_parked on runs (environment_id, task, id) where status = 'WAITING_FOR_DEPLOY';
create index runs_unfinished on runs (environment_id, status, id) where finished_at is null;
create index runs_unsuccessful on runs (environment_id, status, id)
    where finished_at is not null and status <> 'COMPLETED_SUCCESSFULLY';
create index runs_by_environment on runs (environment_id, id);
create index runs_by_task on runs (environment_id, task, id);
create index runs_by_parent on runs (parent_id, id) where parent_id is not null;
create index runs_by_batch on runs (batch_id, id) where batch_id is not null;

create table attempts (
    id            text primary key,
    run_id        text not null references runs (id) on delete cascade,
    number        bigint not null,
    status        text not null,
    started_at    bigint not null,
    completed_at  bigint,
    error         text
);

create index attempts_by_run on attempts (run_id, id);

create table run_tags (
    environment_id  text not null,
    tag             text not null,
    run_id          text not null references runs (id) on delete cascade,
    primary key (environment_id, tag, run_id)
);

create index run_tags_by_run on run_tags (run_id);

create table idempotency_keys (
    environment_id  text not null,
    task            text not null,
    key             text not null,
    run_id          text not null references runs (id) on delete cascade,
    expires_at      bigint not null,
    primary key (environment_id, task, key)
);

create index idempotency_keys_by_run on idempotency_keys (run_id);

-- Answers of requests that carried a request key, so that a repeated request gets the first answer.
create table requests (
    environment_id  text not null,
    key             text not null,
    answer          text not null,
    created_at      bigint not null,
    primary key (environment_id, key)
);

create index requests_by_age on requests (created_at);

create table logs (
    id       bigint generated always as identity primary key,
    run_id   text not null references runs (id) on delete cascade,
    attempt  bigint not null,
    at       bigint not null,
    level    text not null,
    logger   text not null,
    message  text not null
);

create index logs_by_run on logs (run_id, id);

insert into environments (id, concurrency_limit, created_at)
values ('dev', 1000, 0), ('staging', 1000, 0), ('prod', 1000, 0);
