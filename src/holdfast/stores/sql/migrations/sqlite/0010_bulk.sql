-- Actions on many runs. First its members are looked for, from the run :scanned to before :scan_until (null when that is
-- done), then they are acted on in the order of their ids, up to :acted.
create table bulk_actions (
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

create index bulk_actions_pending on bulk_actions (updated_at, id) where status = 'PENDING';
create index bulk_actions_by_environment on bulk_actions (environment_id, id);

-- No foreign key to runs: a member may be an id that no run has.
create table bulk_members (
    bulk_id  text not null references bulk_actions (id),
    run_id   text not null,
    primary key (bulk_id, run_id)
) strict, without rowid;
