-- What a run has done already, and what it waits for.
alter table runs
    add column entries        bigint not null default 0,
    add column journal_bytes  bigint not null default 0,
    add column suspended      bigint not null default 0,
    add column resumes        bigint not null default 0,
    add column active_ms      bigint not null default 0,
    add column operations     bigint not null default 0;

-- What the code of a run was told, in order and without gaps. Only ever added to while the run goes on. No foreign key:
-- entries are added under the lock of their run, and looking for it once more doubled what an entry costs PostgreSQL.
create table journal (
    run_id  text collate "C" not null,
    seq     bigint not null,
    scope   text collate "C" not null,
    kind    text collate "C" not null,
    name    text collate "C" not null,
    args    text collate "C",
    ok      bigint,
    value   text,
    ref     text collate "C",
    primary key (run_id, seq)
)
with (autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 100000);

-- What suspended runs wait for: nobody else has rows here. One with a target and a time is to be looked at then,
-- because the target was being written when the wait began.
create table waits (
    run_id  text collate "C" not null references runs (id) on delete cascade,
    number  bigint not null,
    part    bigint not null,
    target  text collate "C",
    due_at  bigint,
    wake    text collate "C" not null,
    primary key (run_id, part, number)
)
with (
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.0, autovacuum_analyze_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

create index waits_by_target on waits (target) where target is not null;
create index waits_due on waits (due_at) where due_at is not null;

-- Tokens: what a run waits for and somebody outside completes.
create table waitpoints (
    id                          text collate "C" primary key,
    environment_id              text collate "C" not null,
    status                      text collate "C" not null,
    output                      text,
    output_is_error             bigint not null default 0,
    created_at                  bigint not null,
    completed_at                bigint,
    timeout_at                  bigint,
    idempotency_key             text collate "C",
    idempotency_key_expires_at  bigint,
    tags                        text not null,
    schema                      text,
    run_id                      text collate "C"
);

create unique index waitpoints_by_key on waitpoints (environment_id, idempotency_key)
    where idempotency_key is not null;
create index waitpoints_due on waitpoints (timeout_at) where status = 'WAITING' and timeout_at is not null;
create index waitpoints_by_environment on waitpoints (environment_id, id);
