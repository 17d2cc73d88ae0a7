-- Batches and what became of each item. An item without a run was refused; its error is JSON.
create table batches (
    id              text primary key,
    environment_id  text not null,
    run_count       integer not null,
    arrived         integer not null default 0,
    created_at      integer not null,
    updated_at      integer not null,
    sealed_at       integer,
    aborted_at      integer,
    due_at          integer,
    key_digest      text,
    key_shown       text,
    key_expires_at  integer,
    parent_id       text
) strict;

-- A key may be long, and goes with the environment and the tasks of its batch: all are in the digest.
create unique index batches_by_key on batches (key_digest) where key_digest is not null;
create index batches_due on batches (due_at) where due_at is not null;
create index batches_by_age on batches (environment_id, created_at);

-- No foreign key to the run: retention deletes it first, and the batch with its last one.
create table batch_items (
    batch_id   text not null references batches (id) on delete cascade,
    number     integer not null,
    task       text not null,
    run_id     text,
    is_cached  integer not null,
    error      text,
    primary key (batch_id, number)
) strict, without rowid;
