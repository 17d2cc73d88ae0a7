-- Payloads and outputs in the object store, and the runs that use each; a key is <environment>/<name>. At due_at upkeep
-- looks whether any run still does. With deleting the object goes, and nothing may begin to use it.
create table packets (
    key         text collate "C" primary key,
    created_at  bigint not null,
    due_at      bigint,
    deleting    bigint not null default 0
);

create index packets_due on packets (due_at) where due_at is not null;

-- No foreign key to the run: retention deletes it first.
create table packet_runs (
    key     text collate "C" not null references packets (key),
    run_id  text collate "C" not null,
    primary key (key, run_id)
);

create index packet_runs_by_run on packet_runs (run_id);
