-- Deployments: code that is registered ahead of its workers, one of which is current. Plain runs go to that one.
alter table environments add column current_version text;

-- The names of tasks and queues of a version, as JSON; null for versions from before.
alter table versions add column tasks text;
alter table versions add column queues text;

create index versions_by_code on versions (environment_id, fingerprint);

-- A task is retired while the current deployment does not have it: only runs that are locked to a version find it.
alter table tasks add column retired integer not null default 0;

create table deployments (
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

create unique index deployments_by_version on deployments (environment_id, version);

create index deployments_by_environment on deployments (environment_id, id);

-- What other systems call deployments. Several may share a name; the highest version is meant.
create table external_deployments (
    environment_id  text not null references environments (id),
    external_id     text not null,
    version         text not null,
    primary key (environment_id, external_id, version)
) strict, without rowid;

alter table runs add column external_deployment text;

-- Runs that belong to a version: what workers of other versions than the current one look for.
create index runs_pinned
    on runs (environment_id, coalesce(version_lock, version), task, queue, concurrency_key, score, id)
    where status = 'QUEUED' and (version_lock is not null or version is not null);
