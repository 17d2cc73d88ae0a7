-- Deployments: code that is registered ahead of its workers, one of which is current. Plain runs go to that one.
alter table environments add column current_version text collate "C";

-- The names of tasks and queues of a version, as JSON; null for versions from before.
alter table versions
    add column tasks   text,
    add column queues  text;

create index versions_by_code on versions (environment_id, fingerprint);

-- A task is retired while the current deployment does not have it: only runs that are locked to a version find it.
alter table tasks add column retired bigint not null default 0;

create table deployments (
    id               text collate "C" primary key,
    environment_id   text collate "C" not null references environments (id),
    version          text collate "C" not null,
    short_code       text not null,
    status           text not null,
    runtime          text,
    runtime_version  text,
    git              text,
    external_id      text collate "C",
    created_at       bigint not null,
    deployed_at      bigint,
    tasks            text not null,
    queues           text not null
);

create unique index deployments_by_version on deployments (environment_id, version);

create index deployments_by_environment on deployments (environment_id, id);

-- What other systems call deployments. Several may share a name; the highest version is meant.
create table external_deployments (
    environment_id  text collate "C" not null references environments (id),
    external_id     text collate "C" not null,
    version         text collate "C" not null,
    primary key (environment_id, external_id, version)
);

alter table runs add column external_deployment text collate "C";

-- Runs that belong to a version: what workers of other versions than the current one look for.
create index runs_pinned
    on runs (environment_id, coalesce(version_lock, version), task, queue, concurrency_key, score, id)
    where status = 'QUEUED' and (version_lock is not null or version is not null);
