-- Batches and what became of each item. An item without a run was refused; its error is JSON.
create table batches (
    id              text collate "C" primary key,
    environment_id  text collate "C" not null,
    run_count       bigint not null,
    arrived         bigint not null default 0,
    created_at      bigint not null,
    updated_at      bigint not null,
    sealed_at       bigint,
    aborted_at      bigint,
    due_at          bigint,
    key_digest      text collate "C",
    key_shown       text collate "C",
    key_expires_at  bigint,
    parent_id       text collate "C"
);

-- A key may be long, and goes with the environment and the tasks of its batch: all are in the digest.
create unique index batches_by_key on batches (key_digest) where key_digest is not null;
create index batches_due on batches (due_at) where due_at is not null;
create index batches_by_age on batches (environment_id, created_at);

-- No foreign key to the run: retention deletes it first, and the batch with its last one. None to the batch either:
-- items are added under its lock, and looking for it once more took as long as adding them.
create table batch_items (
    batch_id   text collate "C" not null,
    number     bigint not null,
    task       text collate "C" not null,
    run_id     text collate "C",
    is_cached  bigint not null,
    error      text collate "C",
    primary key (batch_id, number)
);
