-- Actions on many runs. First its members are looked for, from the run :scanned to before :scan_until (null when that is
-- done), then they are acted on in the order of their ids, up to :acted.
create table bulk_actions (
    id              text collate "C" primary key,
    environment_id  text collate "C" not null,
    type            text collate "C" not null,
    status          text collate "C" not null,
    name            text,
    filter          text,
    scanned         text collate "C" not null,
    scan_until      text collate "C",
    acted           text collate "C" not null,
    total           bigint not null,
    success         bigint not null,
    failure         bigint not null,
    created_at      bigint not null,
    updated_at      bigint not null,
    completed_at    bigint
);

create index bulk_actions_pending on bulk_actions (updated_at, id) where status = 'PENDING';
create index bulk_actions_by_environment on bulk_actions (environment_id, id);

-- No foreign key to runs: a member may be an id that no run has.
create table bulk_members (
    bulk_id  text collate "C" not null references bulk_actions (id),
    run_id   text collate "C" not null,
    primary key (bulk_id, run_id)
);
