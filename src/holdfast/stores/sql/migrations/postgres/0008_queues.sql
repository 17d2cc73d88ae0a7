-- Queues can be listed, and their limits overridden. Every queue that a task uses has a row, so the claim reads only
-- those that hold something back.
alter table queues
    add column id              text collate "C",
    add column override_limit  bigint,
    add column overridden_at   bigint;

insert into queues (environment_id, name)
select environment_id, spec::jsonb ->> 'queue' from tasks
 union
select environment_id, queue from runs where finished_at is null
    on conflict (environment_id, name) do nothing;
update queues set id = 'queue_' || substr(md5(random()::text || environment_id || name), 1, 24);

create unique index queues_by_id on queues (id);

create index queues_limited on queues (environment_id, name, concurrency_limit, per_key_limit, override_limit, paused)
    where paused = 1 or concurrency_limit is not null or per_key_limit is not null or override_limit is not null;
