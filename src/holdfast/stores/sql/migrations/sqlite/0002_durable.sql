-- What a run has done already, and what it waits for.
alter table runs add column entries integer not null default 0;
alter table runs add column journal_bytes integer not null default 0;
alter table runs add column suspended integer not null default 0;
alter table runs add column resumes integer not null default 0;
alter table runs add column active_ms integer not null default 0;
alter table runs add column operations integer not null default 0;

-- What the code of a run was told, in order and without gaps. Only ever added to while the run goes on. No foreign key:
-- entries are added under the lock of their run, and looking for it once more doubled what an entry costs PostgreSQL.
create table journal (
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

-- What suspended runs wait for: nobody else has rows here. One with a target and a time is to be looked at then,
-- because the target was being written when the wait began.
create table waits (
    run_id  text not null references runs (id) on delete cascade,
    number  integer not null,
    part    integer not null,
    target  text,
    due_at  integer,
    wake    text not null,
    primary key (run_id, part, number)
) strict, without rowid;

create index waits_by_target on waits (target) where target is not null;
create index waits_due on waits (due_at) where due_at is not null;

-- Tokens: what a run waits for and somebody outside completes.
create table waitpoints (
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

create unique index waitpoints_by_key on waitpoints (environment_id, idempotency_key)
    where idempotency_key is not null;
create index waitpoints_due on waitpoints (timeout_at) where status = 'WAITING' and timeout_at is not null;
create index waitpoints_by_environment on waitpoints (environment_id, id);
